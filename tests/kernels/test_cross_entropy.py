"""The cross-entropy kernel, its source executed by the emulator, and the loss without all logits,
against float64 and against the plain model's code."""

import importlib
import inspect
from functools import partial

import pytest
import torch
from changed_kernels import build_all, together
from emulated_launch import Vast
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from llama_from_scratch.kernels.cross_entropy import (
    CHUNK_BYTES,
    REDUCTIONS,
    RUNGS,
    Chunking,
    linear_cross_entropy,
    memory_of,
    run,
)
from llama_from_scratch.kernels.emulator.machine import ORDERS, KernelFault, load
from llama_from_scratch.kernels.machinery.source import Program, Source
from llama_from_scratch.kernels.trial.tolerance import judge

module = importlib.import_module("llama_from_scratch.kernels.cross_entropy")
loss_of = partial(linear_cross_entropy, emulate=True)

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SIZES = ((1, 3, 1), (1, 8, 5), (7, 5, 33), (37, 24, 1031), (2, 4, 8200))   # N, D, V
op = torch.ops.llama_from_scratch.linear_cross_entropy


def draw(*shape, dtype, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def inputs(n, dim, vocab_size, *, dtype=torch.float32):
    """x, weight, and targets of which every fifth is ignored. The logits are about normal."""
    targets = torch.randint(vocab_size, (n,), generator=torch.Generator().manual_seed(n))
    targets[4::5] = -100
    weight = draw(vocab_size, dim, dtype=torch.float32, seed=2) / dim**0.5
    return draw(n, dim, dtype=dtype, seed=1), weight.to(dtype), targets


def plain(x, weight, targets, *, reduction="mean", z_loss=0.0, ignore_index=-100):
    """The plain model's code: F.linear, the softmax in fp32."""
    logits = F.linear(x, weight)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    losses = F.cross_entropy(logits, targets, reduction="none", ignore_index=ignore_index)
    is_counted = targets != ignore_index
    losses = losses + z_loss * logits.logsumexp(1).square() * is_counted
    if reduction == "none":
        return losses
    return losses.sum() / (is_counted.sum() if reduction == "mean" else 1)


def results(function, x, weight, targets, *, upstream=None, **settings):
    """The loss and the gradients of x and weight."""
    x, weight = (each.detach().clone().requires_grad_() for each in (x, weight))
    loss = function(x, weight, targets, **settings)
    if upstream is None:
        upstream = torch.linspace(-1, 2, loss.numel()).reshape(loss.shape)
    return loss.detach(), *torch.autograd.grad(loss, (x, weight), upstream.to(loss.dtype))


def require_right(x, weight, targets, **settings):
    ours = results(loss_of, x, weight, targets, **settings)
    settings.pop("chunk_bytes", None)
    eager = results(plain, x, weight, targets, **settings)
    exact = results(plain, x.double(), weight.double(), targets, **settings)
    for name, result, narrow, wide in zip(("loss", "x", "weight"), ours, eager, exact, strict=True):
        # The plain code's loss is in fp32 too, after logits that were rounded to the dtype.
        verdict = judge(result.to(narrow.dtype), exact=wide, eager=narrow,
                        is_gradient=name != "loss")
        is_loss_of_rounded = name == "loss" and x.dtype in (torch.bfloat16, torch.float16)
        if is_loss_of_rounded:
            logits = F.linear(x, weight).double()
            wide = plain(logits, torch.eye(len(weight), dtype=torch.float64), targets,
                         **settings)
            verdict = judge(result, exact=wide, eager=narrow)
        assert verdict.is_ok, (tuple(x.shape), len(weight), x.dtype, settings, name, verdict)


def checked_launch(program, entry, args, *, grid, block, order="forward", seed=0):
    """As emulated_launch's, for logits that are an input too; the losses are NaN before."""
    args[3].fill_(float("nan"))
    load(program, kind="checked").launch(entry, args, grid=grid, block=block, order=order,
                                         seed=seed)


@pytest.fixture
def checked(monkeypatch):
    """Launches end at the first byte touched outside a tensor."""
    monkeypatch.setattr(module, "launch", checked_launch)


# --- right results --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_loss_and_gradients_are_as_exact_as_the_plain_codes_at_any_size(dtype, reduction, checked):
    for size in SIZES:
        require_right(*inputs(*size, dtype=dtype), reduction=reduction)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_z_loss_is_as_exact_as_the_plain_code(reduction):
    require_right(*inputs(37, 24, 1031), reduction=reduction, z_loss=1e-2)


@pytest.mark.parametrize(("reduction", "z_loss"), [("mean", 0.0), ("sum", 0.3), ("none", 0.3)])
def test_loss_passes_gradcheck_through_the_kernels_source(reduction, z_loss):
    """A second backward pass multiplies by the arriving gradient before the sum over tokens, the
    first one after it, so they differ in the last bits."""
    x, weight, targets = inputs(6, 4, 9, dtype=torch.float64)
    x, weight = x.requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, weight: loss_of(x, weight, targets, reduction=reduction, z_loss=z_loss,
                                  chunk_bytes=2 * 10 * 8), (x, weight),
        nondet_tol=1e-12)


def reference(logits, targets, *, scale, n_columns, ignore_index=-100):
    """The losses of rows of logits, and what must replace the first `n_columns` of them."""
    wide = logits[:, :n_columns].double()
    is_counted = targets != ignore_index
    known = targets.clamp(min=0)
    losses = (wide.logsumexp(1) - wide.gather(1, known[:, None])[:, 0]) * is_counted
    gradient = wide.softmax(1) - F.one_hot(known, n_columns)
    return losses, gradient * (scale * is_counted)[:, None]


def rows(n, n_columns, row_stride, *, dtype, offset=0.0):
    logits = torch.full((n, row_stride), float("nan"))
    logits[:, :n_columns] = 3 * draw(n, n_columns, dtype=torch.float32) + offset
    targets = torch.randint(n_columns, (n,), generator=torch.Generator().manual_seed(1))
    targets[1::3] = -100
    return logits.to(dtype), targets, torch.linspace(0.5, 2, n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("order", ORDERS)
def test_every_rung_gives_the_same_numbers_in_every_order_of_threads(dtype, order, monkeypatch):
    """The widest row is more than all threads take at one time; between rows is NaN."""
    monkeypatch.setattr(module, "launch", partial(checked_launch, order=order, seed=3))
    vector = 16 // dtype.itemsize
    for n, n_columns in ((5, 3), (3, 517), (2, 4 * 1024 * vector + 1027)):
        if n == 2 and order == "reverse":
            continue
        logits, targets, scale = rows(n, n_columns, -(-n_columns // vector) * vector, dtype=dtype)
        losses, gradient = reference(logits, targets, scale=scale, n_columns=n_columns)
        for rung in RUNGS:
            changed = logits.clone()
            found = run(changed, targets, n_columns=n_columns, scale=scale, rung=rung)
            torch.testing.assert_close(found.double(), losses, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(
                changed[:, :n_columns].double(), gradient, atol=1e-7,
                rtol=1e-5 if dtype == torch.float32 else 2**-8)


def test_the_bits_do_not_depend_on_the_number_of_blocks(checked):
    logits, targets, scale = rows(7, 517, 520, dtype=torch.bfloat16)
    found = []
    for n_blocks in (1, 2, 7):
        changed = logits.clone()
        losses = run(changed, targets, n_columns=517, scale=scale, n_blocks=n_blocks)
        found.append((losses, changed[:, :517]))
    assert all(torch.equal(*pair) for each in found for pair in zip(each, found[0], strict=True))


@pytest.mark.parametrize("offset", [-3000.0, 3000.0])
@pytest.mark.parametrize("rung", RUNGS)
def test_logits_far_from_zero_lose_nothing_but_their_own_rounding(offset, rung, checked):
    logits, targets, scale = rows(4, 77, 80, dtype=torch.float32, offset=offset)
    losses, gradient = reference(logits, targets, scale=scale, n_columns=77)
    found = run(logits, targets, n_columns=77, scale=scale, rung=rung)
    torch.testing.assert_close(found.double(), losses, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(logits[:, :77].double(), gradient, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("rung", RUNGS)
def test_infinite_logits_give_what_pytorch_gives(rung, checked):
    """-inf: the word is forbidden, its gradient is 0. inf, NaN, or no word left: the loss is NaN,
    but only in its own row."""
    logits = 3 * draw(5, 40, dtype=torch.float32)
    logits[0, 3] = logits[1, :39] = logits[4] = -torch.inf
    logits[2, 5], logits[3, 7] = torch.inf, torch.nan
    targets = torch.tensor([1, 39, 1, 1, 1])
    expected = F.cross_entropy(logits, targets, reduction="none")
    wide = logits.double().requires_grad_()
    F.cross_entropy(wide, targets, reduction="sum").backward()
    losses = run(logits, targets, rung=rung)
    torch.testing.assert_close(losses, expected, equal_nan=True)
    torch.testing.assert_close(logits[:2].double(), wide.grad[:2], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rung", RUNGS)
def test_without_gradient_the_logits_stay_as_they_are(rung, checked):
    logits, targets, scale = rows(4, 77, 80, dtype=torch.bfloat16)
    before = logits.clone()
    run(logits, targets, n_columns=77, scale=scale, is_gradient=False, rung=rung)
    torch.testing.assert_close(logits, before, equal_nan=True, rtol=0, atol=0)


# --- chunks ---------------------------------------------------------------------------------------


def test_losses_do_not_depend_on_the_size_of_a_chunk():
    x, weight, targets = inputs(37, 24, 1031)
    row_bytes = 1032 * 4
    found = [loss_of(x, weight, targets, reduction="none", chunk_bytes=n * row_bytes)
             for n in (1, 2, 36, 37, 1000)]
    for losses in found:
        torch.testing.assert_close(losses, found[-1], rtol=1e-6, atol=1e-6)
    whole = results(loss_of, x, weight, targets)
    for n in (1, 5):
        torch.testing.assert_close(
            results(loss_of, x, weight, targets, chunk_bytes=n * row_bytes), whole,
            rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("n", "vocab_size", "chunk_bytes", "expected"), [
    (8192, 128256, CHUNK_BYTES, [1024] * 8), (10, 8, 3 * 16, [3, 3, 3, 1]),
    (10, 8, 4 * 16, [4, 4, 2]), (9, 8, 8 * 16, [5, 4]), (3, 1, 10**9, [3]), (0, 5, 100, [])])
def test_chunks_are_as_few_and_as_equal_as_they_can_be(n, vocab_size, chunk_bytes, expected):
    chunking = Chunking.of(n, vocab_size, dtype=torch.bfloat16, chunk_bytes=chunk_bytes)
    slices = list(chunking.slices())
    assert [each.stop - each.start for each in slices] == expected
    assert chunking.n_rows * chunking.row_stride * 2 <= chunk_bytes
    assert [each.start for each in slices] == [sum(expected[:i]) for i in range(len(expected))]


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors made within it, at the moment when they are most."""

    def __init__(self):
        super().__init__()
        self.peak, self._live = 0, {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {each.untyped_storage()._cdata for each in args if isinstance(each, torch.Tensor)}
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in given:
                    self._live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self._live = {key: each for key, each in self._live.items() if not each[0].expired()}
        self.peak = max(self.peak, sum(n_bytes for _, n_bytes in self._live.values()))
        return result


@pytest.fixture
def no_launch(monkeypatch):
    """On a device of type meta, where no kernel runs; a GPU's product that leaves fp32."""
    def add_product(total, a, b, *, is_first):
        assert total.shape == (a.shape[0], b.shape[1]) and total.is_contiguous()

    monkeypatch.setattr(module, "launch", lambda *args, **shape: None)
    monkeypatch.setattr(module, "n_processors", lambda device: 132)
    monkeypatch.setattr(module, "_add_product", add_product)
    monkeypatch.setattr(module, "_labels", lambda targets, *_: targets)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("size", [(8192, 4096, 128256), (100, 64, 1003)])
def test_memory_is_what_the_formula_says(dtype, size, no_launch):
    """Without a value to wait for, either: a tensor on meta has none."""
    n, dim, vocab_size = size
    chunk_bytes = CHUNK_BYTES if n > 1000 else 20 * 1008 * dtype.itemsize
    x, weight = (torch.empty(rows, dim, dtype=dtype, device="meta") for rows in (n, vocab_size))
    targets = torch.empty(n, dtype=torch.int64, device="meta")
    expected = memory_of(n_tokens=n, dim=dim, vocab_size=vocab_size, dtype=dtype,
                         chunk_bytes=chunk_bytes)
    with PeakMemory() as memory:
        _, d_x, d_weight = module._in_chunks(
            x, weight, targets, scale=None, ignore_index=-100, z_loss=0.0, chunk_bytes=chunk_bytes,
            products=dtype, needs_x=True, needs_weight=True)
        forward, one = memory.peak, torch.ones((), device="meta")
        module._rounded(d_x, one, dtype=dtype), module._rounded(d_weight, one, dtype=dtype)
    assert abs(forward - expected.sums - expected.logits) < 0.01 * expected.logits + 16 * n
    assert expected.sums + expected.logits <= memory.peak
    assert memory.peak <= expected.sums + expected.workspace + 16 * n


def test_an_8b_models_loss_takes_less_than_600_megabytes_beyond_its_gradients():
    memory = memory_of(n_tokens=8192, dim=4096, vocab_size=128256, dtype=torch.bfloat16)
    assert memory.workspace < 0.6e9
    assert memory.sums == 4 * (8192 + 128256) * 4096
    assert memory.logits == 1024 * 128256 * 2


# --- bugs that users of kernel libraries reported -------------------------------------------------


def test_reduction_none_gives_every_token_its_own_gradient():
    """Others gave all tokens the first token's gradient, or zeros."""
    x, weight, targets = inputs(11, 8, 50)
    upstream = torch.randn(11, generator=torch.Generator().manual_seed(9))
    upstream[3] = 0.0
    ours = results(loss_of, x, weight, targets, upstream=upstream, reduction="none",
                   chunk_bytes=3 * 52 * 4)
    torch.testing.assert_close(
        ours, results(plain, x, weight, targets, upstream=upstream, reduction="none"))
    assert not ours[1][3].any() and ours[1][5].any()


def test_the_weights_gradient_over_many_chunks_is_summed_in_fp32():
    """Others added the chunks up in bf16, and the training diverged."""
    x, weight, targets = inputs(600, 8, 16, dtype=torch.bfloat16)
    x = x.abs()   # so that the sum grows, and a small addition to it is lost in bf16
    one_token = 16 * 2
    ours = results(loss_of, x, weight, targets, chunk_bytes=one_token, reduction="sum")[2]
    exact = results(plain, x.double(), weight.double(), targets, reduction="sum")[2]
    in_bf16 = sum((results(plain, x[i:i + 1], weight, targets[i:i + 1], reduction="sum")[2]
                   for i in range(600)), torch.zeros_like(weight))
    error, error_in_bf16 = (((each.double() - exact).norm() / exact.norm()).item()
                            for each in (ours, in_bf16))
    assert error < 6e-3 < 5 * 6e-3 < error_in_bf16


def test_an_upstream_gradient_in_any_layout_is_read_at_the_right_offsets():
    x, weight, targets = inputs(12, 8, 50)
    flat = torch.linspace(-1, 2, 24)
    for upstream in (flat[::2], flat[:1].expand(12), flat[1:13], flat.view(2, 12).t()[:, 0]):
        torch.testing.assert_close(
            results(loss_of, x, weight, targets, upstream=upstream, reduction="none"),
            results(plain, x, weight, targets, upstream=upstream, reduction="none"))


def test_x_weight_and_targets_may_be_views_with_gaps():
    x, weight, targets = inputs(12, 8, 50)
    spread = [x.repeat_interleave(2, dim=1)[:, ::2], weight.t().contiguous().t(),
              targets.repeat_interleave(3)[::3]]
    torch.testing.assert_close(results(loss_of, *spread), results(loss_of, x, weight, targets))
    shifted = torch.cat([targets[:1], targets])[1:]
    assert torch.equal(loss_of(x, weight, shifted), loss_of(x, weight, targets))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
def test_each_input_has_a_gradient_where_one_is_wanted(reduction, wanted):
    x, weight, targets = inputs(5, 8, 50)
    x, weight = (each.requires_grad_(is_wanted)
                 for each, is_wanted in zip((x, weight), wanted, strict=True))
    loss_of(x, weight, targets, reduction=reduction).sum().backward()
    assert [x.grad is not None, weight.grad is not None] == list(wanted)
    assert all(each.grad.abs().sum() > 0 for each in (x, weight) if each.grad is not None)


def test_rows_beyond_two_to_the_31st_number_are_found():
    """The last row begins there; an offset of 32 bits would wrap around to memory far below."""
    n_columns, n_rows = 2**17, 2**14 + 1
    vast = Vast(n_rows * n_columns, torch.bfloat16).tensor.view(n_rows, n_columns)
    logits, targets, _ = rows(1, 100, 104, dtype=torch.bfloat16)
    vast[-1, :100] = logits[0, :100]
    all_targets = torch.full((n_rows,), -100)
    all_targets[-1] = targets[0]
    source = Source.read("cross_entropy").replace("size_t at = blockIdx.x; at",
                                                  "size_t at = blockIdx.x + 16384; at")
    losses = torch.zeros(n_rows)
    load(Program(source=source, real=torch.bfloat16)).launch(
        "cross_entropy", [vast, all_targets, None, losses, n_rows, 100, n_columns, -100, 0.0, 1],
        grid=1, block=32)
    expected = run(logits, targets, n_columns=100)
    assert torch.equal(losses[-1:], expected) and torch.equal(vast[-1:, :100], logits[:, :100])


def test_tied_embeddings_receive_both_gradients():
    ids = torch.tensor([[1, 4, 2, 0], [3, 3, 1, 2]])
    targets = torch.tensor([4, 2, 0, 1, 3, 1, 2, -100])
    weight = draw(50, 8, dtype=torch.float32)

    def gradient(function):
        tied = weight.clone().requires_grad_()
        x = torch.tanh(F.embedding(ids, tied)).flatten(0, 1)
        return torch.autograd.grad(function(x, tied, targets), tied)[0]

    torch.testing.assert_close(gradient(loss_of), gradient(plain))


# --- ignored tokens, labels -----------------------------------------------------------------------


@pytest.mark.parametrize("ignore_index", [-100, -1, 7, 10**12])
def test_ignored_tokens_count_for_nothing(ignore_index):
    x, weight, targets = inputs(9, 8, 50)
    targets[4::5], targets[:2] = ignore_index, 8
    found = results(loss_of, x, weight, targets, ignore_index=ignore_index)
    is_counted = targets != ignore_index
    alone = results(plain, x[is_counted], weight, targets[is_counted])
    torch.testing.assert_close(found[0], alone[0])
    torch.testing.assert_close(found[1][is_counted], alone[1])
    assert not found[1][~is_counted].any()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("n", [0, 3])
def test_without_a_counted_token_the_mean_is_nan_and_all_gradients_are_zero(reduction, n):
    x, weight, targets = inputs(n, 8, 50)
    targets[:] = -100
    found = results(loss_of, x, weight, targets, reduction=reduction)
    torch.testing.assert_close(found[0], F.cross_entropy(x @ weight.t(), targets,
                                                         reduction=reduction), equal_nan=True)
    assert found[1].shape == x.shape and not found[1].any() and not found[2].any()


@pytest.mark.parametrize("wrong", [50, -1, -99, 2**40])
def test_a_target_outside_the_vocabulary_is_refused_on_the_cpu_and_stops_the_kernel(wrong):
    x, weight, targets = inputs(5, 8, 50)
    targets[2] = wrong
    with pytest.raises(ValueError, match=rf"from 0 to 49, or -100.*got \[{wrong}\] for token 2"):
        loss_of(x, weight, targets)
    for rung in RUNGS:   # the padding is no word either
        with pytest.raises(KernelFault, match=r"__trap at cross_entropy\.cu"):
            run(F.pad(x @ weight.t(), (0, 2)), targets, n_columns=50, rung=rung)


def test_targets_in_int32_are_taken():
    x, weight, targets = inputs(5, 8, 50)
    assert torch.equal(loss_of(x, weight, targets.int()), loss_of(x, weight, targets))


# --- autograd, autocast, torch --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_second_backward_pass_gives_the_same_gradients(dtype):
    """The first one takes the gradients that the forward pass computed, and their memory."""
    x, weight, targets = inputs(9, 8, 50, dtype=dtype)
    x, weight = x.requires_grad_(), weight.requires_grad_()
    loss = loss_of(x, weight, targets)
    first = torch.autograd.grad(loss, (x, weight), retain_graph=True)
    second = torch.autograd.grad(loss, (x, weight), retain_graph=True)
    third = torch.autograd.grad(2 * loss, (x, weight))
    torch.testing.assert_close(first, second)
    torch.testing.assert_close([each / 2 for each in third], list(first))


def test_gradients_in_pieces_are_rounded_in_the_memory_of_their_sums(monkeypatch):
    monkeypatch.setattr(module, "PIECE", 7)
    for n in (1, 6, 7, 8, 100):
        sums = draw(n, 3, dtype=torch.float32)
        expected = (sums * 0.3).bfloat16()
        found = module._rounded(sums, torch.tensor(0.3), dtype=torch.bfloat16)
        assert torch.equal(found, expected) and found.data_ptr() == sums.data_ptr()


def test_gradients_of_two_calls_add_up():
    x, weight, targets = inputs(9, 8, 50, dtype=torch.bfloat16)
    once = results(loss_of, x, weight, targets, upstream=torch.ones(()))[2]
    leaf = weight.clone().requires_grad_()
    for _ in range(2):
        loss_of(x, leaf, targets).backward()
    assert leaf.grad.dtype == torch.bfloat16 and torch.equal(leaf.grad, 2 * once)


def test_backward_writes_only_gradients():
    x, weight, targets = inputs(9, 8, 50)
    before = [each.clone() for each in (x, weight, targets)]
    results(loss_of, x, weight, targets)
    assert all(torch.equal(*pair) for pair in zip(before, (x, weight, targets), strict=True))


def test_no_gradient_is_computed_that_is_not_needed(monkeypatch):
    def refuse(*args, **settings):
        raise AssertionError("a product for a gradient")

    def only_read(*args, is_gradient, **settings):
        assert not is_gradient
        return run(*args, is_gradient=False, **settings)

    monkeypatch.setattr(module, "_add_product", refuse)
    monkeypatch.setattr(module, "run", only_read)
    x, weight, targets = inputs(5, 8, 50)
    loss_of(x, weight, targets)
    with torch.no_grad():
        loss_of(x.requires_grad_(), weight.requires_grad_(), targets)
    loss_of(x, weight, targets, reduction="none")


def test_under_autocast_the_products_are_in_bf16_and_the_gradients_in_fp32():
    x, weight, targets = inputs(40, 24, 200)
    with torch.autocast("cpu", torch.bfloat16):
        ours, eager = (results(f, x, weight, targets) for f in (loss_of, plain))
    assert ours[0].dtype == ours[1].dtype == ours[2].dtype == torch.float32
    in_bf16 = [x.bfloat16(), weight.bfloat16(), targets]
    torch.testing.assert_close(ours[0], results(loss_of, *in_bf16)[0])
    torch.testing.assert_close(ours[0], eager[0], rtol=1e-5, atol=1e-6)
    exact = results(plain, x.bfloat16().double(), weight.bfloat16().double(), targets)
    for mine, theirs, right in zip(ours[1:], eager[1:], exact[1:], strict=True):
        assert (mine - right).norm() < 0.9 * (theirs - right).norm()


def test_under_autocast_x_may_be_in_bf16_and_the_weight_in_fp32():
    x, weight, targets = inputs(6, 24, 50)
    with torch.autocast("cpu", torch.bfloat16):
        _, d_x, d_weight = results(loss_of, x.bfloat16(), weight, targets)
    assert d_x.dtype == torch.bfloat16 and d_weight.dtype == torch.float32


def test_autocast_leaves_float64_as_it_is():
    x, weight, targets = inputs(6, 4, 50, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss_of(x, weight, targets), loss_of(x, weight, targets))
        assert loss_of(x, weight, targets).dtype == torch.float64


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_torch_accepts_the_registration(reduction):
    """The last check compares the sums, two of the operator's outputs, after a backward pass. That
    divides them, in place, by the number of tokens if the loss is a mean."""
    checks = ["test_schema", "test_autograd_registration", "test_faketensor",
              *["test_aot_dispatch_dynamic"] * (reduction != "mean")]
    x, weight, targets = inputs(5, 4, 9, dtype=torch.float64)
    torch.library.opcheck(op.default, (x.requires_grad_(), weight.requires_grad_(), targets,
                                       reduction, -100, 0.1, 1000, torch.float64, True, True),
                          test_utils=checks)


def test_torch_compile_takes_the_loss_into_one_graph():
    # the compiler cannot trace the tests' shape checks, which users do not have
    unchecked = partial(inspect.unwrap(linear_cross_entropy), emulate=True)
    compiled = torch.compile(lambda x, w, t: 2 * unchecked(x + 1, w, t), fullgraph=True,
                             backend="aot_eager")
    x, weight, targets = inputs(5, 4, 9, dtype=torch.float64)
    torch.testing.assert_close(results(compiled, x, weight, targets),
                               results(lambda x, w, t: 2 * plain(x + 1, w, t), x, weight, targets))


def test_there_is_no_second_derivative():
    x, weight, targets = inputs(5, 4, 9, dtype=torch.float64)
    x, weight = x.requires_grad_(), weight.requires_grad_()
    loss = loss_of(x, weight, targets, reduction="none")
    (d_x,) = torch.autograd.grad(loss.sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        d_x.sum().backward()


# --- refusals -------------------------------------------------------------------------------------


def call(x, weight, targets, *, reduction="mean", chunk_bytes=CHUNK_BYTES, products=None):
    return op(x, weight, targets, reduction, -100, 0.0, chunk_bytes, products or x.dtype, False,
              False)


def test_a_cpu_tensor_is_refused_unless_it_may_be_emulated():
    with pytest.raises(ValueError, match=r"linear_cross_entropy runs on a CUDA device.*emulate"):
        linear_cross_entropy(*inputs(3, 4, 9))


@pytest.mark.parametrize(("change", "message"), [
    (lambda x, w, t: (x[None], w, t), r"takes x \(N, D\).*got \(1, 5, 8\).*x.flatten\(0, 1\)"),
    (lambda x, w, t: (x, w[:, :7], t), r"got \(5, 8\).*\(50, 7\)"),
    (lambda x, w, t: (x, w, t[:4]), r"targets \(N,\).*\(4,\) torch.int64"),
    (lambda x, w, t: (x, w[:0], t), r"at least one word.*\(0, 8\)"),
    (lambda x, w, t: (x, w, t.float()), r"int64 or int32.*got \(5,\) torch.float32"),
    (lambda x, w, t: (x.long(), w.long(), t), r"the kernels compute in .*got torch.int64"),
    (lambda x, w, t: (x, w.to("meta"), t), r"one device.*on meta"),
], ids=["rank", "width", "tokens", "no word", "target dtype", "integers", "devices"])
def test_inputs_that_do_not_match_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        call(*change(*inputs(5, 8, 50)))


def test_two_dtypes_are_refused_without_autocast():
    x, weight, targets = inputs(5, 8, 50)
    with pytest.raises(ValueError, match="must share their dtype; got .*Convert the model"):
        loss_of(x, weight.bfloat16(), targets)


def test_integers_are_refused_under_autocast_too():
    x, weight, targets = inputs(5, 8, 50)
    with pytest.raises(ValueError, match="x and weight must be floating-point"):
        call(x.long(), weight, targets, products=torch.bfloat16)


def test_an_unknown_reduction_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="one of mean, sum, none; got 'total'"):
        call(*inputs(5, 8, 50), reduction="total")


@pytest.mark.parametrize("chunk_bytes", [0, -1, 207])
def test_a_chunk_that_holds_no_token_is_refused(chunk_bytes):
    with pytest.raises(ValueError, match=rf"208 bytes.*got chunk_bytes={chunk_bytes}\. Choose 208"):
        call(*inputs(5, 8, 50), chunk_bytes=chunk_bytes)
    call(*inputs(5, 8, 50), chunk_bytes=208)


def test_an_unknown_rung_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="cross_entropy_1, cross_entropy_2, cross_entropy; got"):
        run(torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64), rung="cross_entropy_9")


def test_rows_that_vectors_cannot_reach_are_refused():
    with pytest.raises(ValueError, match="multiples of 16 bytes; got 9 numbers of torch.float32"):
        run(torch.zeros(2, 9), torch.zeros(2, dtype=torch.int64))
    run(torch.zeros(2, 9), torch.zeros(2, dtype=torch.int64), rung="cross_entropy_2")


def test_a_torch_that_cannot_add_products_of_bf16_in_fp32_is_refused(monkeypatch):
    module._refuse_old_torch()
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu128")
    with pytest.raises(ValueError, match=r"needs PyTorch 2\.10 or newer; this is 2\.9\.1"):
        inspect.unwrap(module._refuse_old_torch)()


# --- planted bugs ---------------------------------------------------------------------------------

BUGS = {   # name: (entry point, old text, new text)
    "sum not multiplied when a larger logit comes": (
        "cross_entropy", "sum *= power(before - largest);", ""),
    "threads add sums that are relative to different numbers": (
        "cross_entropy", "block_sum(sum * power(before - largest), per_warp)",
        "block_sum(sum, per_warp)"),
    "largest number that begins at 0": (
        "cross_entropy", "accum largest = LOWEST, sum = 0;\n\n", "accum largest = 0, sum = 0;\n\n"),
    "no barrier before the warps' numbers are read": (
        "cross_entropy", "per_warp[threadIdx.x / 32] = x;\n    __syncthreads();\n    for (int warp "
        "= 0; warp < blockDim.x / 32; warp++) x = max",
        "per_warp[threadIdx.x / 32] = x;\n    for (int warp = 0; warp < blockDim.x / 32; warp++) x "
        "= max"),
    "no barrier before the buffer is written again": (
        "cross_entropy", "    __syncthreads();   // another result may still be being read from "
                           "per_warp\n", ""),
    "numbers past the end of the row counted": (
        "cross_entropy", "if (c + VECTOR <= n_columns) return;", "return;"),
    "gradient of the target taken off at another column": (
        "cross_entropy", "(int)label - (c + j * step)", "(int)label - c"),
    "row that two blocks visit": ("cross_entropy", "at += gridDim.x", "at += 1"),
    "row past the last one": ("cross_entropy", "at < (size_t)n_rows", "at <= (size_t)n_rows"),
    "ignored row that keeps its logits": (
        "cross_entropy", "is_gradient && c < n_columns; c += step)\n",
        "0 && c < n_columns; c += step)\n"),
    "scale of the first token for all": (
        "cross_entropy", "scale_or_null[at]", "scale_or_null[0]"),
    "scale left out at the target": (
        "cross_entropy", "number[i] -= scale;", "number[i] -= 1;"),
    "vector loaded one step too late": (
        "cross_entropy", "v[j] = load(x + c + j * step)", "v[j] = load(x + c + (j + 1) * step)"),
}


PLANTED = together({name: (Source.read("cross_entropy").replace(old, new), entry)
                    for name, (entry, old, new) in BUGS.items()}, real=torch.float32)


@pytest.fixture(scope="module")
def built():
    build_all([program for program, _ in PLANTED.values()])


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name, built, monkeypatch):
    program, entry = PLANTED[name]
    n_columns = 9001   # three vectors per thread

    def is_caught_in(order, offset):
        monkeypatch.setattr(module, "launch", lambda _, __, args, **shape: checked_launch(
            program, entry, args, order=order, seed=1, **shape))
        logits, targets, scale = rows(5, n_columns, 9004, dtype=torch.float32, offset=offset)
        losses, gradient = reference(logits, targets, scale=scale, n_columns=n_columns)
        try:
            found = run(logits, targets, n_columns=n_columns, scale=scale, rung=BUGS[name][0])
        except KernelFault:
            return True
        return not (torch.allclose(found.double(), losses, rtol=1e-5, atol=1e-5)
                    and torch.allclose(logits[:, :n_columns].double(), gradient, rtol=1e-4,
                                       atol=1e-6))

    assert any(is_caught_in(order, offset) for order in ORDERS for offset in (0.0, -900.0))
