"""The fused AdamW, its source executed by the emulator, against the plain optimizer and float64."""

import pytest
import torch
from torch import nn

from llama_from_scratch.kernels.adamw import CHUNK, N_FIELDS, THREADS, FusedAdamW, _chunks
from llama_from_scratch.kernels.emulator.machine import load
from llama_from_scratch.kernels.machinery.source import Program, Source
from llama_from_scratch.kernels.trial import compare
from llama_from_scratch.train.optimizer import AdamW, Group, clip_gradients

SOURCE = Source.read("adamw")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def parameters(sizes=((3, 7), (1,), (257,), (40, 40)), *, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    params = {f"p{i}": nn.Parameter(torch.randn(size, generator=generator).to(dtype))
              for i, size in enumerate(sizes)}
    for p in params.values():
        p.grad = torch.randn(p.shape, generator=generator).to(dtype)
    return params


def fused(params, *, weight_decay=0.1, **settings):
    return FusedAdamW([Group(params=params, weight_decay=weight_decay)], emulate=True, **settings)


def bits(params):
    return [p.detach().clone() for p in params.values()]


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
def test_steps_are_as_exact_as_those_of_the_plain_optimizer(dtype):
    for comparison in compare.compare_adamw(dtype=dtype, device=torch.device("cpu")):
        assert comparison.verdict.is_ok, comparison


def test_steps_in_float64_equal_the_plain_optimizers():
    ours, plain = parameters(dtype=torch.float64), parameters(dtype=torch.float64)
    optimizer, reference = fused(ours), AdamW([Group(params=plain, weight_decay=0.1)])
    for _ in range(3):
        optimizer.step(lr=1e-2), reference.step(lr=1e-2)
    for name in ours:
        torch.testing.assert_close(ours[name], plain[name], rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_gradients_are_clipped_as_one_vector_and_their_length_is_returned(max_norm):
    ours, plain = parameters(), parameters()
    norm = fused(ours).step(lr=1e-2, max_norm=max_norm)
    expected = clip_gradients(plain.values(), max_norm=max_norm)
    AdamW([Group(params=plain, weight_decay=0.1)]).step(lr=1e-2)
    torch.testing.assert_close(norm, expected, rtol=1e-6, atol=0)
    for name in ours:
        torch.testing.assert_close(ours[name], plain[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_a_gradient_that_is_not_finite_changes_nothing(bad):
    params = parameters()
    optimizer = fused(params)
    optimizer.step(lr=1e-2, max_norm=1.0)
    params["p2"].grad[200] = bad
    before, state = bits(params), {name: x.clone() for name, x in optimizer.state_dict().items()}
    norm = optimizer.step(lr=1e-2, max_norm=1.0)
    assert not norm.isfinite()
    assert all(torch.equal(a, b) for a, b in zip(before, bits(params), strict=True))
    assert all(torch.equal(x, state[name]) for name, x in optimizer.state_dict().items())
    params["p2"].grad[200] = 0.0
    optimizer.step(lr=1e-2, max_norm=1.0)
    assert optimizer.n_steps == 2 and not torch.equal(before[2], params["p2"])


def test_the_norm_is_the_same_bits_for_any_grid(monkeypatch):
    norms = set()
    for n in (1, 3, 7):
        monkeypatch.setattr("llama_from_scratch.kernels.adamw.BLOCKS_PER_PROCESSOR", n)
        optimizer = fused(parameters(((3 * CHUNK + 5,), (100, 100))))
        norms.add(optimizer.step(lr=0.0, max_norm=1.0).item())
    assert len(norms) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_tensor_off_the_16_byte_grid_or_with_a_ragged_end_is_stepped_like_any_other(dtype):
    flat = parameters(((4001,),), dtype=dtype)["p0"].detach()
    gradient = torch.randn(4001, generator=torch.Generator().manual_seed(3)).to(dtype)
    views = {"a": nn.Parameter(flat[:1]), "b": nn.Parameter(flat[1:2000]),
             "c": nn.Parameter(flat[2000:])}
    whole = {"all": nn.Parameter(flat.clone())}
    whole["all"].grad = gradient
    for view, (start, stop) in zip(views.values(), ((0, 1), (1, 2000), (2000, 4001)), strict=True):
        view.grad = gradient[start:stop]
    fused(views).step(lr=1e-2), fused(whole).step(lr=1e-2)
    assert torch.equal(flat, whole["all"].detach())


def test_gradients_in_another_memory_order_are_read_in_the_parameters_order():
    plain, odd = parameters(((6, 4),)), parameters(((6, 4),))
    odd["p0"].grad = odd["p0"].grad.T.contiguous().T
    fused(plain).step(lr=1e-2), fused(odd).step(lr=1e-2)
    assert torch.equal(plain["p0"], odd["p0"])


def test_gradients_that_moved_are_found_again():
    ours, still = parameters(), parameters()
    optimizer, reference = fused(ours), fused(still)
    for _ in range(2):
        optimizer.step(lr=1e-2), reference.step(lr=1e-2)
        gradients = [p.grad.clone() for p in ours.values()]
        optimizer.zero_grad()
        for p, gradient in zip(ours.values(), gradients, strict=True):
            p.grad = gradient
    assert all(torch.equal(a, b) for a, b in zip(bits(ours), bits(still), strict=True))


def table_of(master, mean, square, gradient, copy=None):
    row = [t.data_ptr() if t is not None else 0 for t in (master, mean, square, gradient, copy)]
    return torch.tensor([*row, master.numel()])


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
def test_every_rung_of_the_ladder_gives_the_same_bits_in_every_order(dtype, order):
    machine = load(Program(source=SOURCE, real=dtype), kind="checked")
    n, plan = CHUNK + 1003, torch.tensor([1.0, 0.7, 0.01, 1e-8, 1e-3, 1.0])
    results = []
    for rung in ("adamw_1", "adamw_2", "adamw"):
        generator = torch.Generator().manual_seed(1)
        master, mean, square = (torch.rand(n, generator=generator) for _ in range(3))
        gradient, copy = (torch.randn(n, generator=generator).to(dtype) for _ in range(2))
        if rung == "adamw_1":
            machine.launch(rung, [master, mean, square, gradient, copy, n, plan, 0.9, 0.95, 0.1],
                           grid=-(-n // THREADS), block=THREADS, order=order)
        else:
            work = [table_of(master, mean, square, gradient, copy), torch.tensor([0.1]),
                    *_chunks([n]), 2]
            machine.launch(rung, [*work, plan, 0.9, 0.95], grid=3, block=THREADS, order=order)
        results.append((master, mean, square, copy))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_elements_beyond_what_32_bits_can_count_are_stepped():
    n, start = 2**31 + CHUNK, 2**31
    # only the pages of the last chunk are ever touched
    tensors = [torch.empty(n) for _ in range(4)]
    for t in tensors:
        t[start:] = 0.5
    chunk = [torch.tensor([0], dtype=torch.int32), torch.tensor([start])]
    plan = torch.tensor([1.0, 1.0, 0.01, 1e-8, 0.0, 1.0])
    machine = load(Program(source=SOURCE, real=torch.float32))
    machine.launch("adamw", [table_of(*tensors), torch.tensor([0.0]), *chunk, 1, plan, 0.9, 0.95],
                   grid=1, block=THREADS)
    assert (tensors[0][start:] < 0.5).all() and (tensors[1][start:] == 0.5).all()


def test_the_first_bias_corrections_make_a_step_of_the_learning_rates_length():
    params = parameters(((50,),))
    params["p0"].grad.sign_()
    before = bits(params)[0]
    fused(params, weight_decay=0.0).step(lr=0.25)
    torch.testing.assert_close((before - params["p0"].detach()).abs(), torch.full((50,), 0.25),
                               rtol=1e-5, atol=0)


def test_narrow_weights_move_by_less_than_their_own_steps():
    params = {"w": nn.Parameter(torch.ones(64, dtype=torch.bfloat16))}
    optimizer = fused(params, weight_decay=0.0)
    for _ in range(40):
        params["w"].grad = torch.ones(64, dtype=torch.bfloat16)
        optimizer.step(lr=1e-4)  # bf16 steps below 1 are 1/256 = 39 such steps long
    assert (optimizer.masters["w"] - 0.996).abs().max() < 1e-4
    assert (params["w"] == torch.tensor(0.99609375)).all()


def test_its_state_goes_on_exactly_and_fits_the_plain_optimizer():
    ours, copies = parameters(), parameters()
    optimizer = fused(ours)
    optimizer.step(lr=1e-2, max_norm=1.0)
    successor = fused(copies)
    with torch.no_grad():
        for name, p in copies.items():
            p.copy_(ours[name])
    successor.load_state_dict(optimizer.state_dict())
    AdamW([Group(params=parameters(), weight_decay=0.1)]).load_state_dict(optimizer.state_dict())
    optimizer.step(lr=1e-2, max_norm=1.0), successor.step(lr=1e-2, max_norm=1.0)
    assert all(torch.equal(a, b) for a, b in zip(bits(ours), bits(copies), strict=True))


def test_the_state_of_other_parameters_is_refused():
    with pytest.raises(ValueError, match=r"same parameters; mean\.p3, square\.p3 differ"):
        fused(parameters()).load_state_dict(fused(parameters(((3, 7), (1,), (257,)))).state_dict())


def test_a_cpu_model_is_refused_unless_the_emulator_is_asked_for():
    with pytest.raises(ValueError, match="FusedAdamW runs on a CUDA device; the tensor is on cpu"):
        FusedAdamW([Group(params=parameters(), weight_decay=0.0)])


def test_parameters_of_two_dtypes_are_refused():
    params = parameters() | {"narrow": parameters(((3,),), dtype=torch.bfloat16)["p0"]}
    with pytest.raises(ValueError, match=r"share dtype and device; got .*bfloat16.*float32"):
        fused(params)


def test_a_missing_gradient_is_named_and_nothing_moves():
    params = parameters()
    optimizer, before = fused(params), bits(params)
    params["p1"].grad = None
    with pytest.raises(ValueError, match="p1 got none"):
        optimizer.step(lr=1e-2)
    assert all(torch.equal(a, b) for a, b in zip(before, bits(params), strict=True))


def test_a_parameter_with_gaps_is_refused():
    with pytest.raises(ValueError, match="without gaps in memory; strided have gaps"):
        fused({"strided": nn.Parameter(torch.ones(4, 4)[:, ::2])})


def test_the_tables_agree_with_the_source():
    text = SOURCE.text
    assert f"constexpr int CHUNK = {CHUNK};" in text
    assert f"constexpr int THREADS = {THREADS};" in text
    assert text.split("enum Field {")[1].split("}")[0].count(",") == N_FIELDS
    tensor, start = _chunks([CHUNK + 1, 1, 2 * CHUNK])
    assert tensor.tolist() == [0, 0, 1, 2, 2] and start.tolist() == [0, CHUNK, 0, 0, CHUNK]
    assert tensor.dtype == torch.int32 and start.dtype == torch.int64
