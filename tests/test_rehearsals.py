"""What later parts will do to a finished model, rehearsed from outside the library.

Each rehearsal is as short as the idea: a gated branch in a block, two experts in a layer, adapters
around two matrices, a head of whole numbers, a model cut into two stages, an attention that counts.
"""

import copy
import dataclasses

import pytest
import torch
from hugging_face_twin import loud
from tiny_checkpoints import large_tokenizer
from torch import nn
from torch.nn import functional as F

from llama_from_scratch import family
from llama_from_scratch.checkpoint import native
from llama_from_scratch.checkpoint.convert import FORMATS, write
from llama_from_scratch.config import FeedForwardSpec, LayerSpec, record
from llama_from_scratch.generate.generate import generate
from llama_from_scratch.generate.greedy import GreedyDecoder
from llama_from_scratch.generate.speculative import generate_speculatively
from llama_from_scratch.kernels import fuse
from llama_from_scratch.model import feed_forward
from llama_from_scratch.model.attention import SoftmaxAttention
from llama_from_scratch.model.feed_forward import FeedForward
from llama_from_scratch.model.init import init_linear
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train import Packed, TrainConfig, train

CONFIG = family.tiny("llama-3.1")
PROMPTS = [[5, 6, 7], [9] * 11, [300, 2]]


def ids_of(shape=(2, 9)):
    return torch.randint(512, shape, generator=torch.Generator().manual_seed(1))


def assert_cached_and_batched(model):
    """Two of the equalities that hold for every model: cached = uncached, batched = one by one."""
    ids = ids_of()
    with torch.inference_mode():
        cache = model.new_cache(batch_size=2, max_seq_len=9)
        pieces = [model(ids[:, span], cache=cache) for span in (slice(4), slice(4, 5), slice(5, 9))]
        whole = model(ids)
        torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model(ids[:1]), whole[:1], rtol=1e-5, atol=1e-5)
    alone = [generate(model, [prompt], max_tokens=8)[0] for prompt in PROMPTS]
    assert generate(model, PROMPTS, max_tokens=8) == alone


# --- 1: a block with a gated extra branch -------------------------------------------------------


class GatedBlock(nn.Module):
    def __init__(self, block, dim):
        super().__init__()
        self.block, self.branch = block, nn.Linear(dim, dim)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x, inputs, *, cache):
        x = self.block(x, inputs, cache=cache)
        return x + self.gate.tanh() * self.branch(x)

    def new_cache(self, **room):
        return self.block.new_cache(**room)


def test_a_block_with_a_gated_extra_branch():
    plain = loud(CONFIG)
    model = copy.deepcopy(plain)
    model.layers[1] = GatedBlock(model.layers[1], CONFIG.dim)
    assert torch.equal(model(ids_of()), plain(ids_of())), "closed, it changes nothing"
    with torch.no_grad():
        model.layers[1].gate.fill_(0.7)
    assert (model(ids_of()) - plain(ids_of())).abs().max() > 0.1
    assert_cached_and_batched(model)
    model(ids_of()).square().mean().backward()
    assert model.layers[1].gate.grad.abs() > 0


# --- 2: a feed-forward of two experts in every second layer -------------------------------------


@record
class TwoExperts(FeedForwardSpec):
    width: int


class Mixture(nn.Module):
    def __init__(self, dim, width):
        super().__init__()
        self.router = nn.Linear(dim, 2, bias=False)
        self.experts = nn.ModuleList(FeedForward(dim, width) for _ in range(2))

    def forward(self, x):
        share = self.router(x).softmax(-1)
        return sum(share[..., e, None] * expert(x) for e, expert in enumerate(self.experts))

    def init_weights(self, *, n_additions):
        init_linear(self.router)
        for expert in self.experts:
            expert.init_weights(n_additions=n_additions)


@feed_forward.build.register
def _(spec: TwoExperts, dim: int):
    return Mixture(dim, spec.width)


def test_two_experts_in_every_second_layer():
    layers = (LayerSpec(), LayerSpec(feed_forward=TwoExperts(width=48))) * 2
    config = dataclasses.replace(CONFIG, layers=layers)
    D, F_, E = config.dim, config.ffn_dim, 48
    assert config.param_counts["feed-forward"] == 2 * 3 * D * F_ + 2 * (2 * 3 * D * E + 2 * D)
    model = loud(config)
    assert sum(p.numel() for p in model.parameters()) == config.n_params
    dense = 2 * (3 * D * F_ - (2 * 3 * D * E + 2 * D))
    assert CONFIG.flops_per_token(9) - config.flops_per_token(9) == 2 * dense
    assert config.kv_bytes_per_token(2) == CONFIG.kv_bytes_per_token(2)
    assert_cached_and_batched(model)
    with pytest.raises(ValueError, match="a config file can name only these feed-forwards: dense"):
        config.to_dict()


# --- 3: adapters around wq and wv ---------------------------------------------------------------


class Adapted(nn.Module):
    def __init__(self, frozen, rank=4):
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.down = nn.Linear(frozen.in_features, rank, bias=False)
        self.up = nn.Linear(rank, frozen.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.frozen(x) + self.up(self.down(x))


def adapted():
    torch.manual_seed(0)
    model = Llama(CONFIG).requires_grad_(False)
    for block in model.layers:
        block.attention.wq = Adapted(block.attention.wq)
        block.attention.wv = Adapted(block.attention.wv)
    return model


def test_adapters_around_two_matrices_train_generate_and_are_not_written(tmp_path):
    model, text = adapted(), "the cat sat on the mat, the rat sat on the cat. " * 9
    tokenizer = large_tokenizer(CONFIG.vocab_size)
    before, frozen = generate(model, PROMPTS, max_tokens=8), model.output.weight.clone()
    config = TrainConfig(n_steps=15, batch_size=2, seq_len=32, n_warmup=2, peak_lr=2e-2)
    losses = train(model, Packed([text], tokenizer), config=config).losses
    assert losses[-1] < 0.9 * losses[0] and torch.equal(model.output.weight, frozen)
    assert generate(model, PROMPTS, max_tokens=8) != before
    assert_cached_and_batched(model)
    for format in FORMATS:
        with pytest.raises(ValueError, match=r"layers\.0\.attention\.wq is a \S*Adapted"):
            write(tmp_path / format, model, tokenizer=tokenizer, format=format)
    with pytest.raises(ValueError, match=r"layers\.0\.attention\.wq is a \S*Adapted"):
        native.save(tmp_path / "saved", model, tokenizer)
    with pytest.raises(ValueError, match=r"layers\.0\.attention\.wq is a \S*Adapted"):
        train(model, Packed([text], tokenizer), config=config, folder=tmp_path / "run")
    assert list(tmp_path.iterdir()) == [], "refused before anything is written"


# --- 4: a head in int8 ---------------------------------------------------------------------------


class Int8Head(nn.Module):
    def __init__(self, head):
        super().__init__()
        scale = head.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("rows", (head.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale[:, 0])

    def forward(self, x):
        return F.linear(x, self.rows.to(x.dtype)) * self.scale


def test_a_head_in_int8_generates():
    plain = loud(CONFIG)
    model = copy.deepcopy(plain)
    model.output = Int8Head(model.output)
    exact = plain(ids_of())
    assert (model(ids_of()) - exact).abs().max() < 0.02 * exact.abs().max()
    assert_cached_and_batched(model)
    assert (model.device, model.dtype) == (plain.device, plain.dtype)
    speculation = generate_speculatively(model, PROMPTS[0], draft=plain, max_tokens=8)
    assert speculation.ids == generate(model, PROMPTS[:1], max_tokens=8)[0]
    with pytest.raises(ValueError, match=r"output is a \S*Int8Head"):
        GreedyDecoder(model)


# --- 5: a model cut into two stages --------------------------------------------------------------


def test_two_stages_give_the_logits_and_gradients_of_the_whole():
    whole, ids = loud(CONFIG), ids_of()
    first, last = copy.deepcopy(whole), copy.deepcopy(whole)
    first.layers, last.layers = first.layers[:1], last.layers[1:]

    x = first.embed(ids)
    sent = first.run(x, first.prepare(x))
    received = sent.detach().requires_grad_()  # what travels between two machines
    logits = last.head(last.run(received, last.prepare(received)))
    expected = whole(ids)
    assert torch.equal(logits, expected)

    expected.square().mean().backward()
    logits.square().mean().backward()
    sent.backward(received.grad)
    ours = {id(p): p for stage in (first, last) for p in stage.parameters() if p.grad is not None}
    theirs = list(whole.parameters())
    assert len(ours) == len(theirs)
    torch.testing.assert_close([p.grad for p in ours.values()], [p.grad for p in theirs])


def test_one_model_runs_its_blocks_in_any_pieces():
    model, ids = loud(CONFIG), ids_of()
    x = model.embed(ids)
    inputs = model.prepare(x)
    for layers in (slice(0, 1), slice(1, 3), slice(3, None)):
        x = model.run(x, inputs, layers=layers)
    assert torch.equal(model.head(x), model(ids))


# --- 6: an attention that counts its calls -------------------------------------------------------


class Counting(nn.Module):
    def __init__(self, plain):
        super().__init__()
        self.plain, self.n_calls = plain, 0

    def forward(self, q, k, v, visible):
        self.n_calls += 1
        return self.plain(q, k, v, visible)


def test_an_attention_leaf_is_called_on_every_path():
    model, plain = loud(CONFIG), loud(CONFIG)
    leaves = [Counting(block.attention.attend) for block in model.layers]
    for block, leaf in zip(model.layers, leaves, strict=True):
        assert type(block.attention.attend) is SoftmaxAttention
        block.attention.attend = leaf
    paths = {
        "forward": (lambda m: m(ids_of()), 1),
        "cached": (lambda m: m(ids_of((1, 3)), cache=m.new_cache(batch_size=1, max_seq_len=3)), 1),
        "batched": (lambda m: generate(m, PROMPTS, max_tokens=4), 4),
        "speculative": (lambda m: generate_speculatively(
            m, PROMPTS[0], draft=plain, n_guesses=3, max_tokens=4).ids, 1),
        "fused": (lambda m: (fuse(m, emulate=True), m(ids_of()))[1], 1),
    }
    for name, (path, n_expected) in paths.items():
        for leaf in leaves:
            leaf.n_calls = 0
        with torch.no_grad():
            found, expected = path(model), path(plain)
        same = found == expected if isinstance(found, list) else torch.allclose(found, expected)
        assert same and [leaf.n_calls for leaf in leaves] == [n_expected] * len(leaves), name
