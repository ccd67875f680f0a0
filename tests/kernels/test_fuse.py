"""A fused model against the plain one, with kernels that the emulator executes.

Compared are logits, gradients, cached steps and training; then the way back is tested.
"""

import copy
import dataclasses
import subprocess
import sys

import pytest
import seeing_twin
import torch
from hugging_face_twin import loud
from llama4_twin import assert_near, in_pieces, loud_llama4, padded, random_ids, toy
from relatives import RELATIVES
from torch import nn
from torch.nn import functional as F

from llama_from_scratch import family
from llama_from_scratch.config import Dense, LayerSpec
from llama_from_scratch.generate.generate import generate
from llama_from_scratch.kernels.adamw import FusedAdamW
from llama_from_scratch.kernels.fuse import (
    FusedAddNorm,
    FusedPart,
    FusedRMSNorm,
    FusedSwiGLU,
    fuse,
    unfuse,
)
from llama_from_scratch.model.attention import SoftmaxAttention
from llama_from_scratch.model.chunk_cache import forgetful_cache
from llama_from_scratch.model.feed_forward import SwiGLU
from llama_from_scratch.model.kv_cache import KVCache
from llama_from_scratch.model.norm import AddNorm, RMSNorm
from llama_from_scratch.model.rope import Rotate
from llama_from_scratch.model.transformer import Llama, NextLogits
from llama_from_scratch.train.optimizer import AdamW, decay_groups

GENERATIONS = ("llama-1", "llama-2", "llama-3", "llama-3.1", "llama-3.2")


def pair(generation="llama-3.1", *, dtype=torch.float32):
    torch.manual_seed(0)
    plain = Llama(family.tiny(generation)).to(dtype)
    fused = copy.deepcopy(plain)
    fuse(fused, emulate=True)
    return plain, fused


def ids_of(model, shape=(2, 9)):
    return torch.randint(model.config.vocab_size, shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("generation", GENERATIONS)
def test_logits_and_every_gradient_equal_the_plain_models(generation):
    plain, fused = pair(generation)
    ids = ids_of(plain)
    logits = [model(ids) for model in (plain, fused)]
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-5, atol=1e-5)
    for out in logits:
        F.cross_entropy(out[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    for (name, p), q in zip(plain.named_parameters(), fused.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-4, atol=1e-6,
                                   msg=lambda text, name=name: f"{name}: {text}")


def test_a_fused_model_is_no_further_from_float64_than_the_plain_one_in_bf16():
    plain, fused = pair(dtype=torch.bfloat16)
    ids = ids_of(plain)
    exact = copy.deepcopy(plain).float()(ids)
    off = [(model(ids) - exact).norm() / exact.norm() for model in (plain, fused)]
    assert off[1] <= 1.2 * off[0]


def test_the_parameters_stay_the_same_tensors_under_the_same_names():
    torch.manual_seed(0)
    model = Llama(family.tiny("llama-3"))
    before = dict(model.named_parameters())
    fuse(model, emulate=True)
    after = dict(model.named_parameters())
    assert list(before) == list(after) and all(before[name] is after[name] for name in before)
    assert list(model.state_dict()) == list(before)


def test_cached_steps_equal_one_pass():
    _, fused = pair()
    ids = ids_of(fused)
    cache = KVCache(fused.config, batch_size=2, max_seq_len=9)
    with torch.no_grad():
        steps = [fused(ids[:, t:t + 1], cache=cache) for t in range(ids.shape[1])]
        torch.testing.assert_close(torch.cat(steps, 1), fused(ids), rtol=1e-5, atol=1e-5)


def test_greedy_tokens_are_the_plain_models():
    plain, fused = pair()
    prompts = [row.tolist() for row in ids_of(plain, (2, 5))]
    assert generate(fused, prompts, max_tokens=6) == generate(plain, prompts, max_tokens=6)


def test_the_report_names_every_part():
    torch.manual_seed(0)
    model = Llama(family.tiny("llama-3"))
    report = fuse(model, emulate=True)
    n_layers = model.config.n_layers
    assert report.n_fused == len(report.changes) == 6 * n_layers + 2
    assert f"{report.n_fused} of {report.n_fused} parts fused" in str(report)
    assert "layers.0.attention_norm" in str(report) and "FusedRMSNorm" in str(report)
    assert isinstance(model.layers[0].add_norm, FusedAddNorm)
    assert isinstance(model.norm, FusedRMSNorm)


def test_fusing_twice_changes_nothing_and_reports_nothing():
    _, fused = pair()
    before = dict(fused.named_modules())
    report = fuse(fused, emulate=True)
    assert report.changes == () and str(report) == "0 of 0 parts fused"
    after = dict(fused.named_modules())
    assert list(after) == list(before) and all(after[name] is before[name] for name in before)


def test_each_fused_part_names_the_plain_type_that_it_stands_for():
    plain, fused = pair()
    types = {name: type(module) for name, module in plain.named_modules()}
    parts = {name: module for name, module in fused.named_modules()
             if isinstance(module, FusedPart)}
    assert len(parts) == 6 * plain.config.n_layers + 2
    for name, part in parts.items():
        assert part.stands_for is types[name] is type(part.plain)
    assert {part.stands_for for part in parts.values()} == {
        RMSNorm, AddNorm, SwiGLU, Rotate, SoftmaxAttention, NextLogits}


def test_unfuse_puts_the_plain_parts_back_with_what_was_learned():
    plain, fused = pair()
    with torch.no_grad():
        for p, q in zip(plain.parameters(), fused.parameters(), strict=True):
            p.mul_(1.01), q.mul_(1.01)
    report = unfuse(fused)
    assert not any("Fused" in type(module).__name__ for module in fused.modules())
    assert type(fused.layers[0].add_norm) is AddNorm
    assert report.n_fused == 6 * plain.config.n_layers + 2
    assert torch.equal(fused(ids_of(plain)), plain(ids_of(plain)))
    assert list(fused.state_dict()) == list(plain.state_dict())


def test_unfuse_keeps_a_change_of_dtype_and_of_mode():
    _, fused = pair()
    fused.to(torch.bfloat16).eval()
    unfuse(fused)
    assert {p.dtype for p in fused.parameters()} == {torch.bfloat16}
    assert not any(module.training for module in fused.modules())


def test_a_copy_of_a_fused_model_owns_its_parameters():
    _, fused = pair()
    twin = copy.deepcopy(fused)
    with torch.no_grad():
        twin.layers[0].ffn_norm.weight.mul_(2)
    unfuse(twin)
    assert torch.equal(twin.layers[0].ffn_norm.weight, 2 * fused.layers[0].ffn_norm.weight)


def test_a_layer_without_rope_stays_plain_and_the_report_says_why():
    torch.manual_seed(0)
    config = family.tiny("llama-3")
    layers = (LayerSpec(has_rope=False), *config.layers[1:])
    model = Llama(dataclasses.replace(config, layers=layers))
    report = fuse(model, emulate=True)
    kept = [change for change in report.changes if change.reason]
    assert [change.name for change in kept] == ["layers.0.attention.rotate"]
    assert "no RoPE" in str(report)
    assert report.n_fused == 6 * model.config.n_layers + 1


def test_a_block_with_a_foreign_norm_keeps_its_own_addition():
    torch.manual_seed(0)
    model = Llama(family.tiny("llama-3"))
    model.layers[0].ffn_norm = nn.LayerNorm(model.config.dim)
    report = fuse(model, emulate=True)
    kept = {change.name: change.reason for change in report.changes if change.reason}
    reason = "kept: the norm after it is a LayerNorm, which has no kernel"
    assert kept == {"layers.0.ffn_norm": "kept: no kernel is known for LayerNorm",
                    "layers.0.add_norm": reason}
    assert isinstance(model.layers[0].feed_forward.activation, FusedSwiGLU)
    model(ids_of(model))


class Adapter(nn.Module):
    def __init__(self, plain):
        super().__init__()
        self.plain = plain

    def forward(self, x):
        return 2 * self.plain(x)


def test_unknown_parts_are_listed_and_what_is_inside_them_is_fused():
    torch.manual_seed(0)
    model = Llama(family.tiny("llama-3"))
    model.layers[1].feed_forward = Adapter(model.layers[1].feed_forward)
    report = fuse(model, emulate=True)
    kept = [(change.name, change.reason) for change in report.changes if change.reason]
    assert kept == [("layers.1.feed_forward", "kept: no kernel is known for Adapter")]
    assert isinstance(model.layers[1].feed_forward.plain.activation, FusedSwiGLU)


def test_an_unknown_leaf_is_listed_once_each_time_and_stays():
    torch.manual_seed(0)
    model = Llama(family.tiny("llama-3"))
    leaf = model.layers[1].feed_forward.activation = nn.Bilinear(2, 2, 2)
    first, second = fuse(model, emulate=True), fuse(model, emulate=True)
    names = [change.name for change in first.changes]
    assert len(names) == len(set(names)) == 6 * model.config.n_layers + 2
    (kept,) = [change for change in first.changes if change.reason]
    assert (kept.name, kept.plain) == ("layers.1.feed_forward.activation", "Bilinear")
    assert kept.reason == "kept: no kernel is known for Bilinear"
    assert second.changes == (kept,), "the second time it is all that is left"
    assert model.layers[1].feed_forward.activation is leaf


def test_unfuse_names_each_part_by_its_path():
    _, fused = pair()
    assert {"norm", "layers.0.attention.rotate", "layers.3.feed_forward.activation",
            "layers.2.add_norm"} <= {change.name for change in unfuse(fused).changes}


@pytest.mark.parametrize("name", RELATIVES)
def test_relatives_with_other_heads_or_with_biases_are_fused(name):
    plain = loud(RELATIVES[name])
    fused = copy.deepcopy(plain)
    assert fuse(fused, emulate=True).n_fused == 6 * plain.config.n_layers + 2
    torch.testing.assert_close(fused(ids_of(plain)), plain(ids_of(plain)), rtol=1e-5, atol=1e-5)
    unfuse(fused)
    assert torch.equal(fused(ids_of(plain)), plain(ids_of(plain)))


def test_layers_of_different_widths_are_fused():
    torch.manual_seed(0)
    layers = tuple(LayerSpec(feed_forward=Dense(width=width)) for width in (32, 96))
    plain = Llama(dataclasses.replace(family.tiny("llama-3"), layers=layers))
    fused = copy.deepcopy(plain)
    fuse(fused, emulate=True)
    torch.testing.assert_close(fused(ids_of(plain)), plain(ids_of(plain)), rtol=1e-5, atol=1e-5)


COMPILE = """
import torch
from llama_from_scratch import family
from llama_from_scratch.kernels import fuse
from llama_from_scratch.model.transformer import Llama
nodes = []
def backend(graph, inputs):
    nodes.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
    return graph.forward
torch.manual_seed(0)
model = Llama(family.tiny("llama-3.1"))
fuse(model, emulate=True)
ids = torch.randint(model.config.vocab_size, (1, 5))
assert torch.equal(torch.compile(model, fullgraph=True, backend=backend)(ids), model(ids))
print(sum(name.startswith("llama_from_scratch.") for name in nodes), 5 * model.config.n_layers + 1)
"""


@pytest.mark.slow
def test_a_fused_model_compiles_into_one_graph_that_holds_the_kernels():
    """In a process of its own, because the type checks that pytest adds cannot be compiled."""
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found, expected = done.stdout.split()
    assert found == expected


def test_a_few_steps_of_training_give_the_plain_losses():
    plain, fused = pair()
    losses = []
    for model, make in ((plain, AdamW), (fused, lambda groups: FusedAdamW(groups, emulate=True))):
        optimizer, history = make(decay_groups(model, weight_decay=0.1)), []
        for step in range(3):
            generator = torch.Generator().manual_seed(step)
            ids = torch.randint(model.config.vocab_size, (2, 8), generator=generator)
            loss = F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
            optimizer.zero_grad(), loss.backward(), optimizer.step(lr=1e-3)
            history.append(loss.item())
        losses.append(history)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5) and len(set(losses[0])) == 3


def test_a_cpu_model_is_refused_unless_the_emulator_is_asked_for():
    model = Llama(family.tiny("llama-3"))
    with pytest.raises(ValueError, match="fuse runs on a CUDA device; the tensor is on cpu"):
        fuse(model)
    assert type(model.layers[0].add_norm) is AddNorm


def test_a_model_of_two_dtypes_is_refused():
    model = Llama(family.tiny("llama-3"))
    model.norm.to(torch.bfloat16)
    message = r"on one device; the model has torch\.bfloat16 on cpu, torch\.float32 on cpu"
    with pytest.raises(ValueError, match=message):
        fuse(model, emulate=True)


def test_a_model_without_known_parts_is_refused():
    with pytest.raises(ValueError, match="Linear contains none of them"):
        fuse(nn.Linear(2, 2), emulate=True)
    with pytest.raises(ValueError, match="this one has none"):
        fuse(nn.Identity(), emulate=True)


def test_a_model_that_sees_is_fused_and_keeps_its_eyes_plain():
    plain, (ids, images) = seeing_twin.loud(), seeing_twin.batch()
    fused = copy.deepcopy(plain)
    report = fuse(fused, emulate=True)
    n_text = 6 * plain.config.n_layers + 2
    n_cross = len(plain.config.cross_layers) * (2 + 2 + 1)  # norms, norms of q and k, SwiGLU
    assert "no kernel is known" not in str(report)
    assert report.n_fused == n_text + n_cross
    torch.testing.assert_close(fused(ids, images=images), plain(ids, images=images),
                               rtol=1e-4, atol=1e-4)
    unfuse(fused)
    assert torch.equal(fused(ids, images=images), plain(ids, images=images))


def test_a_llama_4_is_fused_with_its_experts():
    """Logits, gradients and padded steps with a cache that forgets; one launch for all experts."""
    model = loud_llama4(toy(step=2, n_layers=4, n_active=2))
    fused, ids = copy.deepcopy(model), random_ids(2, 6)
    report = fuse(fused, emulate=True)
    reasons = {change.name: change.reason for change in report.changes if change.reason}
    assert reasons == {
        **{f"layers.{i}.attention.{name}": "kept: the norm of single heads has no kernel"
           for i in range(3) for name in ("q_norm", "k_norm")},
        "layers.3.attention.rotate": "kept: this layer has no RoPE, so there is nothing to turn",
        "layers.3.attention.scale_queries": "kept: temperature tuning has no kernel",
        **{f"layers.{i}.feed_forward.router.choose": "kept: the choice of experts has no kernel"
           for i in (1, 3)},
        "next_logits": "kept: a step through experts waits for the device, so it cannot be "
                       "recorded"}
    for name in ("experts", "shared"):
        assert isinstance(getattr(fused.layers[1].feed_forward, name).activation, FusedSwiGLU)
    fake = torch.randn(2, 6, 90)
    for each in (model, fused):
        (each(ids) * fake).sum().backward()
    assert_near(fused(ids), model(ids), "the logits")
    for (name, p), q in zip(model.named_parameters(), fused.parameters(), strict=True):
        assert_near(q.grad, p.grad, name)
    rows, positions, documents = padded([random_ids(6), random_ids(3)])
    given = dict(sizes=[5, 1], positions=positions, documents=documents)
    found = in_pieces(fused, rows, cache=forgetful_cache(fused, batch_size=2, max_seq_len=6),
                      **given)
    expected = in_pieces(model, rows, cache=model.new_cache(batch_size=2, max_seq_len=6), **given)
    assert_near(found[0], expected[0], "the whole row")
    assert_near(found[1, -3:], expected[1, -3:], "the padded row")
    unfuse(fused)
    assert torch.equal(fused(ids), model(ids))
