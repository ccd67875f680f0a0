"""The RoPE kernel, its source executed by the emulator, against float64 and against the plain
model's code."""

import importlib
import inspect

import pytest
import torch
from emulated_launch import Vast, checked_launch
from torch.utils.checkpoint import checkpoint

from llama_from_scratch.kernels.emulator.machine import load
from llama_from_scratch.kernels.emulator.trace import trace
from llama_from_scratch.kernels.machinery.source import Program, Source
from llama_from_scratch.kernels.rope import LAYOUTS, RUNGS, rope, run
from llama_from_scratch.kernels.trial.tolerance import judge
from llama_from_scratch.model.rope import apply_rope, rope_frequencies, rope_rotation

# the package has a function of that name
module = importlib.import_module("llama_from_scratch.kernels.rope")

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# (B, T, H, G, K): ragged lengths, all head widths, groups of every kind; half of 2, 6 and 24 is no
# multiple of a bf16 vector
SIZES = ((1, 1, 1, 1, 2), (2, 2, 3, 1, 6), (1, 33, 4, 2, 64), (2, 77, 5, 5, 2), (2, 33, 7, 1, 80),
         (1, 77, 8, 2, 128), (1, 2, 9, 3, 24))
op = torch.ops.llama_from_scratch.rope


def draw(*shape, dtype, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def inputs(size, *, dtype, shared=False):
    """q, k and the rotation of positions up to 200,000, of their own for every sequence unless
    `shared`."""
    B, T, H, G, K = size
    positions = torch.randint(200_000, (1 if shared else B, T),
                              generator=torch.Generator().manual_seed(T))
    rotation = rope_rotation(positions, rope_frequencies(K, theta=5e5))
    return draw(B, T, H, K, dtype=dtype, seed=1), draw(B, T, G, K, dtype=dtype, seed=2), rotation


def swap(x, layout):
    """The permutation of channels that Hugging Face applies to the rows of wq and wk, where the
    layout asks for it."""
    return x if layout == "interleaved" else x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)


def swap_back(x, layout):
    return x if layout == "interleaved" else x.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)


def plain(q, k, rotation, layout):
    return tuple(swap(apply_rope(swap_back(x, layout), rotation), layout) for x in (q, k))


def exact(q, k, rotation, layout):
    """The formula in float64, on the fp32 angles that the model has."""
    def turned(x):
        x = swap_back(x.double(), layout).unflatten(-1, (-1, 2))
        pairs = torch.view_as_complex(x.contiguous())
        turned = pairs * rotation.to(torch.complex128)[:, :, None]
        return swap(torch.view_as_real(turned).flatten(-2), layout)
    return turned(q), turned(k)


def ours(q, k, rotation, layout):
    return rope(q, k, rotation=rotation, layout=layout, emulate=True)


def gradients(function, q, k, rotation, layout, *, upstream):
    q, k = (x.detach().clone().requires_grad_() for x in (q, k))
    return torch.autograd.grad(function(q, k, rotation, layout), (q, k), upstream)


@pytest.fixture
def checked(monkeypatch):
    """Launches end at the first byte touched beside a tensor."""
    monkeypatch.setattr(module, "launch", checked_launch)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rope_is_as_exact_as_the_plain_code_at_any_size(dtype, layout, checked):
    for size in SIZES:
        args = *inputs(size, dtype=dtype), layout
        for name, result, wide, narrow in zip(
                "qk", ours(*args), exact(*args), plain(*args), strict=True):
            verdict = judge(result, exact=wide, eager=narrow)
            assert verdict.is_ok, (size, name, verdict)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rope_gradients_are_as_exact_as_the_plain_codes_at_any_size(dtype, layout, checked):
    for size in SIZES:
        q, k, rotation = inputs(size, dtype=dtype)
        upstream = [draw(*x.shape, dtype=x.dtype, seed=3) for x in (q, k)]
        wide = gradients(exact, q.double(), k.double(), rotation, layout,
                         upstream=[g.double() for g in upstream])
        found = (gradients(way, q, k, rotation, layout, upstream=upstream) for way in (ours, plain))
        for name, result, narrow, right in zip("qk", *found, wide, strict=True):
            verdict = judge(result, exact=right, eager=narrow, is_gradient=True)
            assert verdict.is_ok, (size, name, verdict)


def test_rope_in_bf16_gives_the_plain_models_bits(checked):
    q, k, rotation = inputs((2, 77, 8, 2, 64), dtype=torch.bfloat16)
    args = q, k, rotation, "interleaved"
    for a, b in zip(ours(*args), plain(*args), strict=True):
        # fused or not, a multiplication and addition may differ in the last fp32 bit
        assert (a != b).float().mean() < 1e-3


def test_the_layouts_are_one_function_under_hugging_faces_permutation(checked):
    for size in SIZES:
        q, k, rotation = inputs(size, dtype=torch.bfloat16)
        halves = ours(swap(q, "half"), swap(k, "half"), rotation, "half")
        neighbours = ours(q, k, rotation, "interleaved")
        assert all(torch.equal(a, swap(b, "half"))
                   for a, b in zip(halves, neighbours, strict=True)), size
        if size[-1] > 2 and size[1] > 1:
            assert not torch.equal(ours(q, k, rotation, "half")[0], neighbours[0])


def test_a_rotation_that_all_sequences_share_equals_one_per_sequence(checked):
    for size in ((3, 5, 2, 1, 6), (3, 33, 4, 2, 64)):
        q, k, rotation = inputs(size, dtype=torch.float32, shared=True)
        each = rotation.expand(size[0], -1, -1)
        for layout in LAYOUTS:
            together, apart = (ours(q, k, table, layout) for table in (rotation, each))
            assert all(torch.equal(a, b) for a, b in zip(together, apart, strict=True))
            alone = [ours(q[i:i + 1], k[i:i + 1], rotation, layout)[0] for i in range(size[0])]
            assert torch.equal(ours(q, k, rotation, layout)[0], torch.cat(alone))


def test_turning_there_and_back_gives_the_same_vectors(checked):
    q, k, rotation = inputs((2, 33, 4, 2, 64), dtype=torch.float32)
    for layout in LAYOUTS:
        is_half = layout == "half"
        there = run(q, k, rotation=rotation, is_half=is_half)
        back = run(*there, rotation=rotation, is_half=is_half, is_backward=True)
        conjugate = rope(*there, rotation=rotation.conj(), layout=layout, emulate=True)
        torch.testing.assert_close(back, (q, k), rtol=0, atol=2e-6)
        assert all(torch.equal(a, b) for a, b in zip(back, conjugate, strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("head_dim", [6, 8])
def test_rope_passes_gradcheck_through_the_kernels_source(layout, head_dim):
    q, k, rotation = inputs((2, 2, 1, 1, head_dim), dtype=torch.float64)
    q.requires_grad_(), k.requires_grad_()
    assert torch.autograd.gradcheck(lambda q, k: op(q, k, rotation, layout == "half", False),
                                    (q, k))


def test_rope_can_be_differentiated_twice():
    q, k, rotation = inputs((1, 2, 1, 1, 4), dtype=torch.float64)
    assert torch.autograd.gradgradcheck(lambda q, k: op(q, k, rotation, False, False),
                                        (q.requires_grad_(), k.requires_grad_()))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
def test_every_rung_of_the_rope_ladder_gives_the_same_bits(dtype, checked):
    # the last is wider than a block
    for size in ((1, 1, 1, 1, 16), (2, 7, 3, 1, 80), (1, 33, 5, 2, 128), (1, 2, 2, 1, 4112)):
        q, k, rotation = inputs(size, dtype=dtype, shared=True)
        for is_half in (False, True):
            first, *others = (run(q, k, rotation=rotation, is_half=is_half, rung=rung)
                              for rung in RUNGS)
            others += [run(q, k, rotation=rotation, is_half=is_half, n_groups=n) for n in (1, 2)]
            assert all(torch.equal(a, b) for pair in others
                       for a, b in zip(pair, first, strict=True)), (size, is_half)


@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
def test_rope_is_the_same_bits_in_every_order_of_threads(order, monkeypatch):
    monkeypatch.setattr(module, "launch",
                        lambda *args, **shape: checked_launch(*args, **shape, order=order, seed=4))
    q, k, rotation = inputs((2, 33, 5, 2, 64), dtype=torch.bfloat16)
    by_rung = [run(q, k, rotation=rotation, rung=rung) for rung in RUNGS]
    assert all(torch.equal(a, b) for pair in by_rung for a, b in zip(pair, by_rung[0], strict=True))


def test_each_rung_of_the_rope_ladder_moves_what_its_comment_says(monkeypatch):
    q, k, rotation = inputs((1, 32, 6, 2, 64), dtype=torch.bfloat16)
    bytes_of = {name: x.numel() * x.element_size()
                for name, x in (("q", q), ("k", k), ("table", rotation))}
    traces = []
    monkeypatch.setattr(module, "launch",
                        lambda *args, **shape: traces.append(trace(*args, **shape)))
    for rung in RUNGS:
        run(q, k, rotation=rotation, rung=rung, n_groups=1)
    per_head, per_token, vectors = (found.moved_bytes for found in traces)
    # every byte once
    assert vectors["q"] == (bytes_of["q"], 0) and vectors["k_out"] == (0, bytes_of["k"])
    # a and b of a pair are fetched one after the other
    assert per_head["q"] == per_token["q"] == (2 * bytes_of["q"], 0)
    # the table again for each of the 8 heads
    assert per_head["rotation"] == (8 * per_token["rotation"][0], 0)
    assert per_token["rotation"] == vectors["rotation"] == (2 * bytes_of["table"], 0)
    assert not any(found.races or found.out_of_bounds for found in traces)


# --- bugs that users of kernel libraries reported -------------------------------------------------


def layouts_of(x):
    yield "heads before tokens", x.transpose(1, 2).contiguous().transpose(1, 2)
    yield "a part of a wider projection", torch.cat([x, x], dim=2)[:, :, :x.shape[2]]
    yield "misaligned", torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)
    yield "one token for all", x[:, :1].expand(x.shape)
    yield "one number for all", x[:1, :1, :1, :1].expand(x.shape)


def test_a_strided_or_misaligned_tensor_is_not_read_at_wrong_offsets(checked):
    """Attention works on (B, H, T, K) and hands its gradients back so; a sum hands back one number
    with strides of 0."""
    q, k, rotation = inputs((2, 5, 3, 3, 16), dtype=torch.bfloat16)
    for name, x in layouts_of(q):
        assert torch.equal(ours(x, k, rotation, "half")[0],
                           ours(x.clone(), k, rotation, "half")[0]), name
        assert torch.equal(ours(q, x, rotation, "half")[1],
                           ours(q, x.clone(), rotation, "half")[1]), name
        strided = gradients(ours, q, k, rotation, "interleaved", upstream=(x, x))
        dense = gradients(ours, q, k, rotation, "interleaved", upstream=(x.clone(), x.clone()))
        assert all(torch.equal(a, b) for a, b in zip(strided, dense, strict=True)), name


def test_rope_leaves_its_inputs_as_they_are_so_that_checkpointing_is_right(checked):
    """In place it would turn q a second time when the layer is computed again for its backward
    pass."""
    q, k, rotation = inputs((2, 5, 3, 1, 16), dtype=torch.float32)
    before = q.clone(), k.clone()
    upstream = [draw(*x.shape, dtype=x.dtype, seed=3) for x in (q, k)]
    def again(*args):
        return checkpoint(lambda q, k: [x * x for x in ours(q, k, *args[2:])], *args[:2],
                          use_reentrant=False)
    def once(*args):
        return [x * x for x in ours(*args)]
    found = [gradients(way, q, k, rotation, "interleaved", upstream=upstream)
             for way in (again, once)]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert torch.equal(q, before[0]) and torch.equal(k, before[1])


def test_an_output_that_nobody_used_has_the_gradient_zero(checked):
    q, k, rotation = inputs((1, 3, 2, 1, 16), dtype=torch.float32)
    q.requires_grad_(), k.requires_grad_()
    ours(q, k, rotation, "interleaved")[0].sum().backward()
    assert q.grad.abs().sum() > 0 and torch.equal(k.grad, torch.zeros_like(k))


def test_rope_reaches_elements_beyond_two_to_the_31st():
    """17 tokens of one head, 2^27 channels wide, of which one block is launched; 32 bits would wrap
    in the last token."""
    n_tokens, width, real = 17, 2**27, torch.bfloat16
    q, table = Vast(n_tokens * width, real).tensor, Vast(width, torch.float32).tensor
    nothing = torch.zeros(8, dtype=real)
    quarter_turns = torch.tensor([0.0, 1.0]).repeat(64)    # (a, b) -> (-b, a)
    table[:128] = table[width // 2:width // 2 + 128] = quarter_turns
    places = torch.cat([torch.arange(64), width // 2 + torch.arange(64)])
    x = draw(n_tokens, 128, dtype=real)
    q.view(n_tokens, width)[:, places] = x
    args = [q, nothing, table, q, nothing, n_tokens, 1, 1, 0, width, 0, 1.0]
    load(Program(source=Source.read("rope"), real=real)).launch("rope", args, grid=1, block=(8, 32))
    turned = torch.stack([-x[:, 1::2], x[:, ::2]], dim=-1).flatten(1)
    assert torch.equal(q.view(n_tokens, width)[:, places], turned)


def test_one_token_and_one_pair_are_enough(checked):
    q, k, _ = inputs((1, 1, 1, 1, 2), dtype=torch.float32)
    quarter = torch.tensor([[[1j]]], dtype=torch.complex64)
    turned, _ = ours(q, k, quarter, "half")
    assert torch.equal(turned, torch.stack([-q[..., 1], q[..., 0]], dim=-1))


def test_no_token_at_all_is_no_launch(checked):
    q, k, rotation = inputs((1, 0, 2, 1, 16), dtype=torch.bfloat16)
    assert ours(q, k, rotation, "interleaved")[0].shape == (1, 0, 2, 16)


# --- refusals and torch ---------------------------------------------------------------------------


def test_rope_refuses_a_cpu_tensor_unless_it_may_emulate():
    q, k, rotation = inputs((1, 3, 2, 1, 16), dtype=torch.float32)
    with pytest.raises(ValueError, match="rope runs on a CUDA device; the tensor is on "
                                         "cpu.*emulate=True"):
        rope(q, k, rotation=rotation)


def test_rope_refuses_an_unknown_layout():
    with pytest.raises(ValueError,
                       match="layout must be one of interleaved, half; got 'neighbours'"):
        ours(*inputs((1, 3, 2, 1, 16), dtype=torch.float32), "neighbours")


@pytest.mark.parametrize("change, message", [
    (lambda q, k, r: (q[0], k, r), r"q \(B, T, H, K\) and k \(B, T, G, K\).*got \(3, 2, 16\)"),
    (lambda q, k, r: (q, k[:, :2], r), r"only in the number of heads; got \(2, 3, 2, 16\) "
                                       r"and \(2, 2, 1, 16\)"),
    (lambda q, k, r: (q[..., :15], k[..., :15], r), "width of a head must be even; got 15"),
    (lambda q, k, r: (q, k, r[:, :2]), r"rotation must be \(2 or 1, 3, 8\) for q \(2, 3, 2, "
                                       r"16\).*got \(2, 2, 8\)"),
    (lambda q, k, r: (q, k, r[..., :4]), r"one number per token and pair; got \(2, 3, 4\)"),
    (lambda q, k, r: (q, k.bfloat16(), r), "must share a dtype.*got torch.float32, torch.bfloat16 "
                                           "and torch.complex64"),
    (lambda q, k, r: (q, k, r.to(torch.complex128)), "must be complex64 at any dtype.*and "
                                                     "torch.complex128"),
    (lambda q, k, r: (q.to("meta"), k, r), "must be on one device; got meta, cpu and cpu"),
    (lambda q, k, r: (q.long(), k.long(), r), "the kernels compute in .*; got torch.int64"),
    (lambda q, k, r: (q.requires_grad_(), k, r.requires_grad_()), r"no gradient for its "
                                                                  r"rotation.*rotation.detach\(\)"),
])
def test_rope_refuses_what_does_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        op(*change(*inputs((2, 3, 2, 1, 16), dtype=torch.float32)), False, False)


def test_the_vector_rung_refuses_a_width_that_it_would_cut():
    q, k, rotation = inputs((1, 3, 2, 1, 6), dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="moves 8 numbers at a time, so half a head must be a "
                                         "multiple of that; got 3"):
        run(q, k, rotation=rotation, rung="rope")


def test_torch_accepts_the_registration_of_rope():
    q, k, rotation = inputs((2, 3, 2, 1, 8), dtype=torch.float64)
    torch.library.opcheck(op.default,
                          (q.requires_grad_(), k.requires_grad_(), rotation, False, False))


def test_torch_compile_takes_rope_into_one_graph():
    # the compiler cannot trace the tests' shape checks, which users do not have
    unchecked = inspect.unwrap(rope)
    compiled = torch.compile(lambda q, k, rotation, layout: unchecked(
        2 * q, k, rotation=rotation, layout=layout, emulate=True),
                             fullgraph=True, backend="aot_eager")
    q, k, rotation = inputs((2, 3, 2, 1, 8), dtype=torch.float64)
    found = gradients(compiled, q, k, rotation, "half", upstream=(q, k))
    right = gradients(lambda q, *rest: ours(2 * q, *rest), q, k, rotation, "half", upstream=(q, k))
    for a, b in zip(found, right, strict=True):
        torch.testing.assert_close(a, b)
