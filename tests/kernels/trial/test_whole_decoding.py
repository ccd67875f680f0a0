"""A whole step of decoding, with a tiny model on the emulator."""

import json

import pytest
import torch
from torch import nn

from llama_from_scratch import family
from llama_from_scratch.kernels.trial import timing, whole_decoding
from llama_from_scratch.kernels.trial.whole_decoding import (
    Decoder,
    bytes_per_token,
    decoding_row,
    random_model,
    with_weights,
)
from llama_from_scratch.model.quantized import Int4Linear, Int8Linear

CPU = torch.device("cpu")
FLOORS = timing.Floors(copy_bytes_per_s=4e12, product_operations_per_s=8e14, sheet=None)
TINY = family.tiny("llama-3.2")


@pytest.fixture
def no_clock(monkeypatch):
    def once(prepare, n_repeats=1, is_graph=True):
        for call in prepare():
            call()
        return timing.Time(median=100.0, p20=99.0, p80=101.0, is_graph=is_graph)

    monkeypatch.setattr(timing, "time_graph", once)
    monkeypatch.setattr(timing, "time_stream", lambda prepare: once(prepare, is_graph=False))
    monkeypatch.setattr(timing, "floors", lambda device: FLOORS)
    monkeypatch.setattr(whole_decoding, "GROUP", 32)
    monkeypatch.setitem(whole_decoding.WEIGHTS, "int4",
                        lambda linear: Int4Linear.from_linear(linear, group=32))


def test_a_random_model_has_the_shape_and_its_tied_weights():
    model = random_model(TINY, dtype=torch.bfloat16, device=CPU)
    assert model.output.weight is model.tok_embeddings.weight
    assert sum(p.numel() for p in model.parameters()) == TINY.n_params
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())
    assert model.norm.weight.eq(1).all() and model.layers[0].attention.wq.weight.std() > 0


def test_every_linear_layer_is_replaced_and_the_bytes_are_those_that_a_step_reads(no_clock):
    untied = family.tiny("llama-3")
    model = random_model(untied, dtype=torch.bfloat16, device=CPU)
    n_embedding = untied.vocab_size * untied.dim
    cache = 2 * 10 * len(untied.layers) * untied.n_kv_heads * untied.head_dim * 2
    rope = model.rope.freq_R.nbytes
    assert bytes_per_token(model, context=10) == 2 * (
        untied.n_params - n_embedding) + rope + cache
    int8 = with_weights(model, "int8")
    assert isinstance(int8.output, Int8Linear)
    assert not any(type(module) is nn.Linear for module in int8.modules())
    n_norms = (2 * len(untied.layers) + 1) * untied.dim
    n_scales = sum(each.scale.numel() for each in int8.modules() if isinstance(each, Int8Linear))
    assert bytes_per_token(int8, context=0) == (
        untied.n_params - n_embedding - n_norms + 2 * n_norms + 2 * n_scales + rope)


def test_a_step_writes_the_most_likely_id_and_forgets_that_it_was_read():
    model = random_model(TINY, dtype=torch.float32, device=CPU)
    decoder = Decoder(model, context=5)
    first, cached = decoder.ids.clone(), decoder.logits()
    assert decoder.cache.length == 6 and decoder.logits().equal(cached)
    decoder.step()
    assert decoder.ids.item() == cached.argmax() and decoder.ids.shape == first.shape
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(TINY.vocab_size, (1, 6), generator=generator)
    torch.testing.assert_close(model(ids)[0, -1], cached)
    static = Decoder(model, context=5, is_static=True)
    for _ in range(2):
        torch.testing.assert_close(static.logits(), cached)
    static.step()
    assert static.ids.equal(decoder.ids)


def test_a_rehearsal_on_the_emulator_fills_a_row_for_each_kind_of_weights(no_clock, monkeypatch):
    monkeypatch.setattr(whole_decoding.family, "config", lambda name: TINY)
    monkeypatch.setattr(whole_decoding, "CONTEXT", 6)
    said = []
    first, *steps = whole_decoding.steps(CPU)
    assert first.name == "floors" and [step.name for step in steps] == ["bf16", "int8", "int4"]
    for step in steps:
        found = step.run(said.append)
        assert not found.wrong, said
        data = json.loads(json.dumps(found.data))
        assert data["tokens_per_s"] == pytest.approx(1e4)
        (row,) = data["rows"]
        assert row["kernel"] == f"decoding, {step.name} weights" and row["n_bytes"] > 0
        assert [*row["ratios"]] == ["eager, in a graph", "eager"]
        assert not row["rivals"][1]["time"]["is_graph"]
    assert f"{whole_decoding.SHAPE}, int4: 10000 tokens/s after 6 tokens" in said


def test_wrong_logits_are_found(no_clock, monkeypatch):
    def spoils(model, emulate):
        model.norm.weight.data.mul_(1.05)

    monkeypatch.setattr(whole_decoding, "fuse", spoils)
    row = decoding_row(TINY, "bf16", context=4, floors=FLOORS, device=CPU, say=lambda text: None)
    assert not row.is_right and row.error_ratio > 2


def test_a_gpu_without_room_for_the_model_is_told_how_much_it_needs(monkeypatch):
    class Small:
        total_memory = 24 * 2**30

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Small)
    step = whole_decoding.steps(torch.device("cuda"))[1]
    assert step.run(print).why_not == ("the model and its copy in fp32 need 52 GiB; this GPU has "
                                       "24 GiB")
