"""Decoding attention, its source executed by the emulator, against float64 and against PyTorch's
own attention over the tokens that each query sees."""

import importlib
import inspect
from functools import partial

import pytest
import torch
from changed_kernels import build_all, only, together
from emulated_launch import Vast, checked_launch
from torch.nn import functional as F

from llama_from_scratch.kernels.decode import RUNGS, decode_attention, run, splits_for
from llama_from_scratch.kernels.emulator.machine import ORDERS, KernelFault
from llama_from_scratch.kernels.emulator.trace import trace
from llama_from_scratch.kernels.machinery.source import Program, Source
from llama_from_scratch.kernels.trial.tolerance import judge

module = importlib.import_module("llama_from_scratch.kernels.decode")

# (T, H, G, K, S), lengths, chunk size: one token and several, an odd width, ragged lengths, no
# token at all, a full cache, more queries than tokens, chunks that end inside the new tokens
CASES = (
    ((1, 1, 1, 64, 1), (1,), None),
    ((1, 6, 2, 64, 300), (300, 0, 77), None),
    ((3, 8, 1, 128, 513), (513, 2), None),
    ((1, 4, 4, 128, 150), (149,), None),
    ((2, 6, 3, 80, 150), (150, 33), None),
    ((2, 7, 1, 64, 700), (650, 65), 64),
)
op = torch.ops.llama_from_scratch.decode_attention


def draw(*shape, dtype, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def inputs(size, lengths, *, dtype):
    (T, H, G, K, S), B = size, len(lengths)
    return (draw(B, T, H, K, dtype=dtype, seed=1), draw(B, S, G, K, dtype=dtype, seed=2),
            draw(B, S, G, K, dtype=dtype, seed=3), torch.tensor(lengths, dtype=torch.int32))


def plain(q, keys, values, lengths, chunk_size=None):
    """PyTorch's attention, for each query alone."""
    out = torch.zeros_like(q)
    for b, length in enumerate(lengths.tolist()):
        for t in range(q.shape[1]):
            end = length - (q.shape[1] - 1 - t)
            begin = (end - 1) // chunk_size * chunk_size if chunk_size else 0
            if end > 0:
                k, v = (x[b, begin:end].transpose(0, 1) for x in (keys, values))
                out[b, t] = F.scaled_dot_product_attention(
                    q[b, t][:, None], k, v, enable_gqa=True)[:, 0]
    return out


def verdict_on(out, q, keys, values, lengths, chunk_size=None):
    exact = plain(q.double(), keys.double(), values.double(), lengths, chunk_size)
    return judge(out, exact=exact, eager=plain(q, keys, values, lengths, chunk_size))


def rungs_for(q, *, but=()):
    return [name for name, rung in RUNGS.items() if name not in but and rung.fits(
        width=q.shape[3], dtype=q.dtype, capability=(9, 0))]


@pytest.fixture
def checked(monkeypatch):
    """Launches end at the first byte touched outside a tensor."""
    monkeypatch.setattr(module, "launch", checked_launch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_decoding_is_as_exact_as_pytorchs_attention_by_every_rung(dtype, checked):
    for i, (size, lengths, chunk_size) in enumerate(CASES):
        args = inputs(size, lengths, dtype=dtype)
        # the naive rung adds fp32 numbers one after another, and so rounds more
        for rung in rungs_for(args[0], but=["decode_attention_1"] * (dtype == torch.float32)):
            out = run(*args[:3], lengths=args[3], chunk_size=chunk_size, rung=rung,
                      n_splits=1 + i % 3)
            verdict = verdict_on(out, *args, chunk_size)
            assert verdict.is_ok, (size, rung, verdict)


def test_tensor_cores_multiply_fp16_as_well(checked):
    for size, lengths, _ in CASES[1:3]:
        args = inputs(size, lengths, dtype=torch.float16)
        out = run(*args[:3], lengths=args[3], rung=f"decode_attention_mma_{size[3]}", n_splits=1)
        assert (verdict := verdict_on(out, *args)).is_ok, (size, verdict)


def test_any_group_size_gives_what_pytorch_gives(checked):
    """Dispatch lists of other libraries left out 5, 6, 7 and 16 in turn, or were wrong at 7."""
    for group in range(1, 17):
        for T in (1, 2):
            args = inputs((T, 2 * group, 2, 64, 70), (70, 9), dtype=torch.bfloat16)
            out = decode_attention(*args[:3], lengths=args[3], emulate=True)
            assert (verdict := verdict_on(out, *args)).is_ok, (group, T, verdict)


def test_decoding_is_the_same_bits_in_every_order_of_threads():
    args = inputs((2, 6, 2, 64, 300), (300, 0, 77), dtype=torch.bfloat16)
    for rung in rungs_for(args[0]):
        first, *others = (run(*args[:3], lengths=args[3], rung=rung, n_splits=2, launcher=partial(
            checked_launch, order=order, seed=4)) for order in ORDERS)
        assert all(torch.equal(first, other) for other in others), rung


def test_double_runs_through_the_same_source():
    args = inputs((2, 6, 2, 128, 100), (100, 3), dtype=torch.float64)
    for rung in rungs_for(args[0]):
        out = run(*args[:3], lengths=args[3], rung=rung, n_splits=2)
        torch.testing.assert_close(out, plain(*args), rtol=1e-12, atol=1e-14)


def test_a_query_that_sees_nothing_gets_zeros(checked):
    args = inputs((3, 4, 2, 64, 40), (0, 1, 2), dtype=torch.bfloat16)
    for rung in rungs_for(args[0]):
        for n_splits in (1, 4):
            out = run(*args[:3], lengths=args[3], rung=rung, n_splits=n_splits)
            assert not out[0].any() and not out[1, :2].any() and not out[2, 0].any()
            assert out[1, 2].all() and out[2, 1].all()


def test_padding_before_the_start_is_as_if_it_were_not_there(checked):
    starts = torch.tensor([0, 3, 69, 70], dtype=torch.int32)
    for size, chunk_size in (((2, 4, 2, 64, 70), None), ((2, 4, 2, 80, 70), 16)):
        q, keys, values, lengths = inputs(size, (70,) * 4, dtype=torch.bfloat16)
        shifted = [torch.stack([x[b].roll(-first, 0) for b, first in enumerate(starts.tolist())])
                   for x in (keys, values)]
        for rung in rungs_for(q):
            out = run(q, keys, values, lengths=lengths, starts=starts, chunk_size=chunk_size,
                      rung=rung, n_splits=2)
            verdict = verdict_on(out, q, *shifted, lengths - starts, chunk_size)
            assert verdict.is_ok, (rung, verdict)
        assert not out[3].any() and not out[2, 0].any() and out[2, 1].all()


def test_tokens_beyond_the_length_are_not_read(checked):
    """A cache that was just made, or is used again, holds anything there."""
    q, keys, values, lengths = inputs((2, 4, 2, 64, 200), (130, 1), dtype=torch.bfloat16)
    right = {rung: run(q, keys, values, lengths=lengths, rung=rung) for rung in rungs_for(q)}
    for b, length in enumerate(lengths.tolist()):
        keys[b, length:], values[b, length:] = torch.nan, torch.inf
    for rung, expected in right.items():
        assert torch.equal(run(q, keys, values, lengths=lengths, rung=rung), expected), rung


def test_a_number_that_is_not_one_stays_visible(checked):
    for poisoned in (1, 2):
        args = inputs((1, 4, 2, 64, 200), (130,), dtype=torch.bfloat16)
        args[poisoned][0, 70, 0] = torch.nan
        for rung in rungs_for(args[0]):
            for n_splits in (1, 2):
                out = run(*args[:3], lengths=args[3], rung=rung, n_splits=n_splits)
                assert out[0, 0, :2].isnan().all() and out[0, 0, 2:].isfinite().all(), rung


def test_large_scores_do_not_overflow(checked):
    q, keys, values, lengths = inputs((1, 4, 2, 64, 200), (200,), dtype=torch.bfloat16)
    for rung in rungs_for(q):
        out = run(100 * q, 100 * keys, values, lengths=lengths, rung=rung, n_splits=2)
        assert (v := verdict_on(out, 100 * q, 100 * keys, values, lengths)).is_ok, (rung, v)


def test_caches_are_read_where_they_are(checked, monkeypatch):
    """Views of a larger cache, and heads before tokens, are not copied."""
    q, keys, values, lengths = inputs((1, 4, 2, 64, 40), (40, 7), dtype=torch.bfloat16)
    expected = run(q, keys, values, lengths=lengths)
    room = [torch.full((3, 90, 5, 64), torch.nan, dtype=q.dtype) for _ in range(2)]
    views = [x[1:, 20:60, 1:5:2] for x in room]
    for view, x in zip(views, (keys, values), strict=True):
        view.copy_(x)
    turned = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (keys, values)]
    monkeypatch.setattr(module, "aligned", lambda x: x if x.ndim < 4 or x is q else 1 / 0)
    for pair in (views, turned):
        for rung in rungs_for(q):
            found = run(q, *pair, lengths=lengths, rung=rung)
            assert (verdict := verdict_on(found, q, keys, values, lengths)).is_ok, verdict
    monkeypatch.undo()
    strange = keys.transpose(2, 3).contiguous().transpose(2, 3)    # a copy is needed
    assert torch.equal(run(q, strange, values, lengths=lengths), expected)
    strided = q.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(run(strided, keys, values, lengths=lengths), expected)


@pytest.mark.parametrize("rung", ["decode_attention_2", "decode_attention_64_by4",
                                  "decode_attention_mma_64"])
def test_decoding_reaches_tokens_beyond_two_to_the_31_numbers(rung):
    S, step = 17, 2**27
    vast = Vast(S * step, torch.bfloat16).tensor
    cache = vast.as_strided((1, S, 1, 64), (S * step, step, step, 1))
    q, keys, _, lengths = inputs((1, 2, 1, 64, S), (S,), dtype=torch.bfloat16)
    cache.copy_(keys)
    expected = run(q, keys, keys, lengths=lengths, rung=rung)
    assert torch.equal(run(q, cache, cache, lengths=lengths, rung=rung), expected)


def test_heads_of_a_group_read_the_cache_together():
    q, keys, values, lengths = inputs((1, 4, 1, 64, 64), (64,), dtype=torch.bfloat16)
    moved = {}
    for rung in ("decode_attention_64_by1", "decode_attention_64_by4", "decode_attention_mma_64"):
        run(q, keys, values, lengths=lengths, rung=rung, n_splits=1,
            launcher=lambda program, entry, *rest, **shape: moved.update({entry: trace(
                Program(source=only(program.source, entry), real=program.real), entry, *rest,
                **shape)}))
    assert [found.moved_bytes["keys"] for found in moved.values()] == [
        (4 * keys.nbytes, 0), (keys.nbytes, 0), (keys.nbytes, 0)]
    assert not any(found.races or found.out_of_bounds for found in moved.values())


def test_one_grid_serves_every_length():
    """A CUDA graph repeats a launch with the numbers that it was captured with."""
    q, keys, values, _ = inputs((1, 4, 2, 64, 4096), (1,) * 2, dtype=torch.bfloat16)
    shapes = []
    for length in (0, 1, 4096):
        run(q, keys, values, lengths=torch.full((2,), length, dtype=torch.int32),
            launcher=lambda program, entry, args, **shape: shapes.append(
                (entry, shape, [arg for arg in args if not isinstance(arg, torch.Tensor)])))
    assert len(shapes) == 6 and shapes[:2] == shapes[2:4] == shapes[4:]


# --- the number of splits -------------------------------------------------------------------------


def test_splits_fill_the_gpu_and_no_more():
    assert splits_for(n_blocks=400, n_keys=2**15, n_places=396) == 1    # it is full already
    assert splits_for(n_blocks=8, n_keys=511, n_places=396) == 1        # under two parts
    assert splits_for(n_blocks=8, n_keys=1024, n_places=396) == 4       # parts of 4 tiles
    long = splits_for(n_blocks=8, n_keys=2**17, n_places=396)
    assert 0.8 * 396 <= 8 * long <= 396                                 # one wave, nearly full
    for n_blocks in range(4, 211, 7):
        n = splits_for(n_blocks=n_blocks, n_keys=2**17, n_places=264)
        waves = n_blocks * n / 264
        assert 1 <= n <= 128 and waves / -(-n_blocks * n // 264) >= 0.8, n_blocks


def test_more_splits_than_tiles_leave_the_rest_empty(checked):
    args = inputs((1, 4, 2, 64, 300), (300, 65, 0), dtype=torch.bfloat16)
    for rung in rungs_for(args[0], but=["decode_attention_1"]):
        out = run(*args[:3], lengths=args[3], rung=rung, n_splits=9)
        assert (verdict := verdict_on(out, *args)).is_ok, (rung, verdict)


# --- planted bugs ---------------------------------------------------------------------------------

PLANTED = {   # the source, the rung, what is changed, and into what
    "a query also sees the next token": (
        "decode", "64_by4", "sequence.end - (n_queries - 1 - token);",
        "sequence.end - (n_queries - 1 - token) + (token < n_queries - 1);"),
    "sums do not shrink when the largest score grows": (
        "decode", "64_by4", "sum[r][e] *= shrink;\n        }\n        #pragma", "(void)shrink;\n "
        "       }\n        #pragma"),
    "heads of a group far apart": (
        "decode", "64_by4", "kv * group + row % group;", "kv + row % group * n_kv_heads;"),
    "keys beyond the end of the cache": (
        "decode", "64_by4", "for (int part = 0; part < VECTORS; part++) if (j < mine.end) {",
        "for (int part = 0; part < VECTORS; part++) {"),
    "warps added up before they have written": (
        "decode", "64_by4", "    __syncthreads();\n    for (int i = threadIdx.x; i < n_rows", "    "
        "for (int i = threadIdx.x; i < n_rows"),
    "splits combined as if their largest scores were equal": (
        "decode", "combine", "c]\n                 * exponential(largest_and_sum[2 * (first + s)] "
                             "- m);", "c];"),
    "a tile used before it is there": (
        "decode_mma", "mma_64", "cp_async_wait<STAGES - 2>()", "cp_async_wait<STAGES - 1>()"),
    "a stage filled again while it is read": (
        "decode_mma", "mma_64", "if (i + STAGES - 1 < n_tiles) fetch(i + STAGES - 1);",
        "if (i + STAGES < n_tiles) fetch(i + STAGES);"),
    "values read as if they were not swizzled": (
        "decode_mma", "mma_64", "value + swizzled<WIDTH>(lane % 16, c + lane / 16)",
        "value + lane % 16 * WIDTH + (c + lane / 16) * 8"),
    "the parts of a fragment exchanged": (
        "decode_mma", "mma_64", "lane / 16 * 8 + lane % 8, c + lane / 8 % 2",
        "lane / 8 % 2 * 8 + lane % 8, c + lane / 16"),
    "keys beyond the end not masked": (
        "decode_mma", "mma_64", "at < sees[half].end;", "at < sees[half].end + 1;"),
    "rows added up over too few lanes": (
        "decode_mma", "mma_64", "        l[half] += __shfl_xor_sync(ALL_LANES, l[half], 2);\n", ""),
    "half of the sums do not shrink": (
        "decode_mma", "mma_64", "sum[c][2 * half] *= shrink, sum", "sum"),
}


RACY = "copies of other lanes that are not waited for"
CHANGED = together({
    name: (Source.read(file).replace(old, new),
           "decode_combine" if rung == "combine" else f"decode_attention_{rung}")
    for name, (file, rung, old, new) in PLANTED.items()}) | together({   # traced, the others not
        RACY: (Source.read("decode_mma").replace("__syncwarp();   // every", "// every"),
               "decode_attention_mma_64")})


@pytest.fixture(scope="module")
def built():
    build_all([CHANGED[name][0] for name in PLANTED])


def with_planted(name, *, launch=checked_launch):
    """A launcher that launches the changed entry point in place of the right one."""
    changed, renamed = CHANGED[name]
    original = renamed.partition("_version")[0]

    def launcher(program, entry, *rest, **shape):
        return launch(*((changed, renamed) if entry == original else (program, entry)), *rest,
                      **shape)

    return launcher


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_caught(name, built):
    rung, launcher = PLANTED[name][1], with_planted(name)
    args = inputs((2, 4, 2, 64, 500), (65, 130, 500), dtype=torch.bfloat16)

    def is_caught_in(order):
        try:
            out = run(*args[:3], lengths=args[3], n_splits=2,
                      launcher=partial(launcher, order=order, seed=1),
                      rung=f"decode_attention_{'64_by4' if rung == 'combine' else rung}")
        except KernelFault:
            return True
        return not verdict_on(out, *args).is_ok

    assert any(map(is_caught_in, ORDERS))


def test_copies_of_other_lanes_that_are_not_waited_for_are_a_race():
    """The emulator's ldmatrix makes a warp meet, which hides it from the results."""
    launcher = with_planted(RACY, launch=trace)
    races = []
    q, keys, values, lengths = inputs((1, 4, 1, 64, 40), (40,), dtype=torch.bfloat16)
    run(q, keys, values, lengths=lengths, rung="decode_attention_mma_64", n_splits=1,
        launcher=lambda *args, **shape: races.extend(launcher(*args, **shape).races))
    assert races


# --- refusals and torch ---------------------------------------------------------------------------


def test_decoding_refuses_a_cpu_tensor_unless_it_may_emulate():
    q, keys, values, lengths = inputs((1, 2, 1, 64, 5), (5,), dtype=torch.float32)
    with pytest.raises(ValueError, match="decode_attention runs on a CUDA device; the tensor is "
                                         "on cpu.*emulate=True"):
        decode_attention(q, keys, values, lengths=lengths)


def test_a_length_beyond_the_cache_is_refused_by_the_host_and_trapped_by_the_device():
    q, keys, values, _ = inputs((1, 2, 1, 64, 5), (5, 5), dtype=torch.float32)
    for wrong in (6, -1):
        lengths = torch.tensor([5, wrong], dtype=torch.int32)
        with pytest.raises(ValueError, match="must be from 0 to 5.*Make a larger cache"):
            op(q, keys, values, lengths, None, None, None)
        for rung in rungs_for(q):
            with pytest.raises(KernelFault, match="__trap"):
                run(q, keys, values, lengths=lengths, rung=rung)


@pytest.mark.parametrize("change, message", [
    (lambda q, k, v, n: (q[0], k, v, n), r"q must be \(B, T, H, K\).*got q \(1, 4, 64\)"),
    (lambda q, k, v, n: (q, k.transpose(1, 2), v.transpose(1, 2), n),
     r"G divides H.*keys \(2, 2, 5, 64\).*exchanges them"),
    (lambda q, k, v, n: (q, k[:1], v[:1], n), r"keys \(1, 5, 2, 64\)"),
    (lambda q, k, v, n: (q, k, v[:, :4], n), r"values \(2, 4, 2, 64\)"),
    (lambda q, k, v, n: (q[..., :32], k, v, n), r"got q \(2, 1, 4, 32\)"),
    (lambda q, k, v, n: (q[:, :, :3], k, v, n), r"G divides H.*got q \(2, 1, 3, 64\)"),
    (lambda q, k, v, n: (q, k.bfloat16(), v, n), "must share a dtype"),
    (lambda q, k, v, n: (q, k, v, n.to("meta")), "everything a device.*lengths on meta"),
    (lambda q, k, v, n: (q, k, v, n.long()), r"one int32 per sequence, \(2,\); got \(2,\) "
                                             "torch.int64"),
    (lambda q, k, v, n: (q, k, v, n[:1]), r"one int32 per sequence, \(2,\); got \(1,\)"),
    (lambda q, k, v, n: (q.long(), k.long(), v.long(), n), "the kernels compute in"),
])
def test_decoding_refuses_what_does_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        op(*change(*inputs((1, 4, 2, 64, 5), (5, 3), dtype=torch.float32)), None, None, None)


def test_decoding_refuses_numbers_below_one_and_rungs_that_do_not_fit():
    args = inputs((1, 4, 2, 80, 5), (5, 3), dtype=torch.float32)
    with pytest.raises(ValueError, match="chunk_size must be at least 1, or None; got 0"):
        op(*args, None, 0, None)
    with pytest.raises(ValueError, match="n_splits must be at least 1, or None; got -2"):
        op(*args, None, None, -2)
    with pytest.raises(ValueError, match="is for heads of width 64.*got 80.*decode_attention_2"):
        run(*args[:3], lengths=args[3], rung="decode_attention_mma_64")


def test_no_query_and_no_key_are_no_launch(checked):
    q, keys, values, lengths = inputs((1, 4, 2, 64, 5), (0,), dtype=torch.float32)
    assert run(q[:0], keys[:0], values[:0], lengths=lengths[:0]).shape == (0, 1, 4, 64)
    assert not run(q, keys[:, :0], values[:, :0], lengths=lengths).any()


def test_torch_accepts_the_registration_of_decoding():
    args = inputs((2, 4, 2, 64, 70), (70, 3), dtype=torch.bfloat16)
    starts = torch.tensor([2, 0], dtype=torch.int32)
    torch.library.opcheck(op.default, (*args, None, None, None))
    torch.library.opcheck(op.default, (*args, starts, 32, 2))


def test_torch_compile_takes_decoding_into_one_graph_and_there_is_no_derivative():
    unchecked = inspect.unwrap(decode_attention)
    q, keys, values, lengths = inputs((1, 4, 2, 64, 70), (70, 3), dtype=torch.bfloat16)

    def way(q):
        return 2 * unchecked(q + 1, keys, values, lengths=lengths, emulate=True)

    assert torch.equal(torch.compile(way, fullgraph=True, backend="aot_eager")(q), way(q))
    with pytest.raises(NotImplementedError, match="no derivative.*Train with kernels.attention"):
        way(q.requires_grad_()).sum().backward()
