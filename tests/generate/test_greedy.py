import dataclasses

import fusion_looking
import pytest
import torch
from hugging_face_twin import loud
from llama4_twin import loud_llama4, toy
from relatives import RELATIVES
from seeing_twin import loud as looking_model
from torch import nn

from llama_from_scratch import family
from llama_from_scratch.config import LayerSpec
from llama_from_scratch.generate import greedy
from llama_from_scratch.generate.generate import generate
from llama_from_scratch.generate.greedy import GreedyDecoder, can_decode
from llama_from_scratch.model.kv_cache import KVCache
from llama_from_scratch.vision.adapter import detach

CHUNKED = dataclasses.replace(
    family.tiny("llama-3.1"), layers=(LayerSpec(chunk_size=5), LayerSpec(has_rope=False)) * 2)
CONFIGS = {name: family.tiny(name) for name in ("llama-1", "llama-3.1", "llama-3.2")}
CONFIGS["chunked"] = CHUNKED
CONFIGS |= {name: RELATIVES[name] for name in ("many heads", "biases of queries, keys and values",
                                               "all of it, tied")}
PROMPT = [7, 8, 9, 10, 11, 300]


@pytest.fixture(autouse=True)
def walked(monkeypatch):
    """The decoder's own way by vectors, on every machine."""
    monkeypatch.setattr(greedy, "fastest", lambda ways: 0)


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    return loud(CONFIGS[request.param])


@pytest.mark.parametrize("prompt", [[5], PROMPT, PROMPT * 3])
def test_it_writes_what_generate_writes(model, prompt):
    decoder = GreedyDecoder(model, is_screened=True)
    ids = list(decoder.stream(prompt, max_tokens=40))
    assert ids == generate(model, [prompt], max_tokens=40)[0]
    assert decoder.screen.n_asked == 40 and decoder.screen.n_undecided < 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_hidden_state_is_that_of_the_model(model, dtype):
    """Teacher forcing: both get the same ids, past the first chunk's end."""
    model = loud(model.config).to(dtype)
    decoder, seen = GreedyDecoder(model), []
    decoder._likeliest = lambda hidden_D: seen.append(hidden_D) or (len(seen) * 37) % 500
    ids = list(decoder.stream(PROMPT, max_tokens=60))
    with torch.inference_mode():
        cache = KVCache(model.config, batch_size=1, max_seq_len=100, dtype=dtype)
        plain = [model.hidden(torch.tensor([piece]), cache=cache)[0, -1]
                 for piece in [PROMPT, *([i] for i in ids[:-1])]]
    # One rounding of bf16 is 2^-8; four layers add up a few. The states themselves are of size 1.
    tolerance = 1e-5 if dtype == torch.float32 else 2**-4
    torch.testing.assert_close(torch.stack(seen), torch.stack(plain), rtol=tolerance,
                               atol=tolerance)


def test_where_the_screen_cannot_decide_the_head_does(model):
    model = loud(model.config)
    with torch.no_grad():
        model.output.weight[1::2] = model.output.weight[::2]  # every logit twice
    decoder = GreedyDecoder(model, is_screened=True)
    ids = list(decoder.stream(PROMPT, max_tokens=20))
    assert ids == generate(model, [PROMPT], max_tokens=20)[0]
    assert decoder.screen.n_undecided == 20


def test_it_ends_at_a_stop_id_without_it(model):
    ids = generate(model, [PROMPT], max_tokens=30)[0]
    stop = ids[10]
    assert list(GreedyDecoder(model).stream(PROMPT, stop_ids={stop})) == ids[: ids.index(stop)]
    assert list(GreedyDecoder(model).stream(PROMPT, stop_ids={ids[0]})) == []


def test_without_a_limit_it_fills_the_context(model):
    model = loud(dataclasses.replace(model.config, max_seq_len=24))
    assert len(list(GreedyDecoder(model).stream(PROMPT))) == 18


def test_two_streams_of_one_decoder_do_not_disturb_each_other(model):
    decoder = GreedyDecoder(model)
    left, right = decoder.stream(PROMPT, max_tokens=20), decoder.stream([5, 6], max_tokens=20)
    pairs = list(zip(left, right, strict=True))
    expected = generate(model, [PROMPT, [5, 6]], max_tokens=20)
    assert [list(ids) for ids in zip(*pairs, strict=True)] == expected


def test_the_model_is_left_as_it_was(model):
    before = [w.clone() for w in model.parameters()]
    list(GreedyDecoder(model).stream(PROMPT, max_tokens=10))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_changed_weights_are_refused():
    model = loud(family.tiny("llama-3"))
    decoder = GreedyDecoder(model)
    with torch.no_grad():
        model.layers[0].attention.wq.weight.mul_(2)
    with pytest.raises(ValueError, match="weights have changed since this GreedyDecoder was made"):
        next(decoder.stream(PROMPT))


def test_a_nan_is_refused_as_generate_refuses_it():
    model = loud(family.tiny("llama-3"))
    with torch.no_grad():
        model.layers[0].feed_forward.w_down.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="the model's logits hold a NaN"):
        next(GreedyDecoder(model).stream(PROMPT))


def test_a_prompt_that_leaves_no_room_is_refused():
    model = loud(family.tiny("llama-3"))
    with pytest.raises(ValueError, match="leaves room for 0"):
        next(GreedyDecoder(model).stream([1] * model.config.max_seq_len))


def test_a_model_that_is_not_on_a_cpu_is_refused():
    with pytest.raises(ValueError, match="a GreedyDecoder runs on a CPU; this model is on meta"):
        GreedyDecoder(loud(family.tiny("llama-3")).to("meta"))


def test_a_model_that_sees_is_refused_and_its_text_model_is_not():
    model = looking_model()
    with pytest.raises(ValueError, match=r"this model also sees. .*generate\(\), or .*detach"):
        GreedyDecoder(model)
    assert not greedy.can_decode(model) and greedy.can_decode(detach(model))


def test_without_a_screen_the_head_decides(model):
    decoder = GreedyDecoder(model, is_screened=False)
    assert decoder.screen is None
    ids = list(decoder.stream(PROMPT, max_tokens=20))
    assert ids == generate(model, [PROMPT], max_tokens=20)[0]


# --- what is fast here ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", [0, 1, 2])
def test_every_way_writes_the_same(way, model, monkeypatch):
    """By vectors, by matrices of one row, and by the plain model."""
    monkeypatch.setattr(greedy, "fastest", lambda ways: min(way, len(ways) - 1))
    decoder = GreedyDecoder(model, is_screened=False)
    assert decoder.is_plain == (way == 2)
    ids = generate(model, [PROMPT], max_tokens=30)[0]
    assert list(decoder.stream(PROMPT, max_tokens=30)) == ids
    stopped = list(decoder.stream(PROMPT, max_tokens=30, stop_ids={ids[9]}))
    assert stopped == ids[: ids.index(ids[9])]


@pytest.mark.parametrize(("choices", "is_used"), [([0, 0], False), ([0, 1], True), ([2], False)])
def test_the_screen_is_used_where_it_is_faster_and_never_with_the_plain_model(
    choices, is_used, monkeypatch
):
    asked = iter(choices)
    monkeypatch.setattr(greedy, "fastest", lambda ways: next(asked))
    decoder = GreedyDecoder(loud(family.tiny("llama-3")))
    assert (decoder.screen is not None) == is_used and next(asked, None) is None
    assert decoder.screen is None or decoder.screen.n_asked == 0


def test_a_screen_that_is_asked_for_is_used_whatever_is_faster(monkeypatch):
    monkeypatch.setattr(greedy, "fastest", lambda ways: len(ways) - 1)
    decoder = GreedyDecoder(loud(family.tiny("llama-3")), is_screened=True)
    assert decoder.screen is not None and not decoder.is_plain


def test_a_context_too_short_for_a_probe_is_no_fault():
    model = loud(dataclasses.replace(family.tiny("llama-3"), max_seq_len=8))
    assert len(list(GreedyDecoder(model).stream([1, 2]))) == 6


class Doubled(nn.Module):
    def __init__(self, plain):
        super().__init__()
        self.plain = plain

    def forward(self, *args, **settings):
        return 2 * self.plain(*args, **settings)


@pytest.mark.parametrize(
    "path", ["layers.1.attention.wq", "layers.0.feed_forward", "output", "norm"])
def test_a_part_that_is_not_plain_is_refused_by_name(path):
    model = loud(family.tiny("llama-3"))
    owner, _, name = path.rpartition(".")
    setattr(model.get_submodule(owner), name, Doubled(model.get_submodule(path)))
    with pytest.raises(ValueError, match=rf"of plain parts; in this one {path} is a \S*Doubled"):
        GreedyDecoder(model)


def test_a_fused_model_is_refused():
    from llama_from_scratch.kernels import fuse

    model = loud(family.tiny("llama-3"))
    fuse(model, emulate=True)
    with pytest.raises(ValueError, match="layers.0.attention_norm is a FusedRMSNorm, where the"):
        GreedyDecoder(model)


@pytest.mark.parametrize(("config", "words"), [
    (toy(has_qk_norm=False), "layer 0 has Experts"),
    (toy(step=9), "layer 0 changes queries after RoPE"),
    (toy(step=9, has_qk_norm=False), "layer 3 changes queries after RoPE"),
], ids=["experts", "norm", "temperature"])
def test_what_llama_4_adds_is_declined_by_name(config, words):
    model = loud_llama4(config)
    assert not can_decode(model)
    with pytest.raises(ValueError, match=rf"in this model {words}\. Decode with generate"):
        GreedyDecoder(model)


def test_a_model_that_reads_images_as_tokens_is_refused():
    model = fusion_looking.reader()
    assert not can_decode(model)
    with pytest.raises(ValueError, match="also sees"):
        GreedyDecoder(model)
