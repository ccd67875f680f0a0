"""Does a GPU do what the emulator does? One instruction at a time, on the same random fragments.

What the course says about tensor cores was tried on the emulator, so the emulator must be right.
Each instruction runs alone in the smallest kernel that shows all registers or bytes that it writes
(instructions.cu, instructions_hopper.cu). A plain PyTorch formula, written from the layouts in the
documentation and not from the emulator's code, says what these must be. GPU and emulator are both
compared with it, bit for bit. For products, the numbers are small integers, so that every sum is
exact in any order. A second case with normal random numbers shows how far the GPU's sums are from
the exact ones: it aligns all products of an instruction to the largest and cuts off the rest.

Notebook 33. Source: NVIDIA, "PTX ISA", sections on mma.m16n8k16, ldmatrix, cp.async, mbarrier,
cp.async.bulk.tensor and wgmma.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.kernels.machinery.launch import launch
from llama_from_scratch.kernels.machinery.source import Program, Source
from llama_from_scratch.kernels.machinery.tensor_map import TensorMap
from llama_from_scratch.kernels.trial.compare import no_emulator
from llama_from_scratch.kernels.trial.parts import Finding, Say, TrialStep

FOLDER = Path(__file__).parent
PLAIN, HOPPER = "instructions", "instructions_hopper"   # the files
N_CASES = 16   # fragments per instruction, a block for each
# Of the largest of the 17 or more numbers that a tensor core adds at once, per number. It keeps at
# least 2^-23 of the largest, and cuts off the rest of each.
ADDITION_STEP = 2.0**-22


@record
class Case:
    """One launch of an instruction: what it gets, and what it must write.

    `args`: with a tensor of zeros in each place of `outputs`. `expected`: for each output; in fp64
    if `rounds`, where sums are not exact. `largest`: then, the largest number in each sum.
    """

    entry: str
    args: tuple[Any, ...]
    outputs: tuple[int, ...]
    expected: tuple[Tensor, ...]
    grid: int
    block: int
    shared_bytes: int = 0
    largest: Tensor | None = None
    n_added: int = 0

    @property
    def rounds(self) -> bool:
        return self.largest is not None


@record
class Instruction:
    """One row of the table: what it is called, the file with its kernel, and its cases."""

    name: str
    file: str
    cases: Callable[[torch.Generator, torch.dtype], Sequence[Case]]
    dtypes: tuple[torch.dtype, ...] = (torch.bfloat16,)


# --- mma and ldmatrix -----------------------------------------------------------------------------

LANE = torch.arange(32)


def a_registers(a: Tensor) -> Tensor:
    """Returns the 8 numbers that each lane holds of A (..., 16, 16): (..., 32, 8).

    Register r holds the numbers 2r and 2r + 1: row lane/4, plus 8 if r is odd; column 2 (lane%4)
    and the next, plus 8 for the registers 2 and 3.
    """
    i = torch.arange(8)
    row = LANE[:, None] // 4 + i // 2 % 2 * 8
    column = LANE[:, None] % 4 * 2 + i % 2 + i // 4 * 8
    return a[..., row, column]


def b_registers(b: Tensor) -> Tensor:
    """Returns the 4 numbers that each lane holds of B (..., 16, 8): (..., 32, 4)."""
    i = torch.arange(4)
    row = LANE[:, None] % 4 * 2 + i % 2 + i // 2 * 8
    return b[..., row, (LANE // 4)[:, None].expand(32, 4)]


def c_registers(c: Tensor) -> Tensor:
    """Returns the 4 numbers that each lane holds of C (..., 16, 8): (..., 32, 4)."""
    i = torch.arange(4)
    return c[..., LANE[:, None] // 4 + i // 2 * 8, LANE[:, None] % 4 * 2 + i % 2]


def _mma(draw: torch.Generator, dtype: torch.dtype) -> list[Case]:
    cases = []
    for is_exact in (True, False):
        a, b, c = (_numbers(draw, (N_CASES, *shape), is_exact)
                   for shape in ((16, 16), (16, 8), (16, 8)))
        a, b = a.to(dtype), b.to(dtype)
        products = a.double()[..., None] * b.double()[:, None]      # (cases, row, k, column)
        d = c.double() + products.sum(2)
        args = (_as_ints(a_registers(a)), _as_ints(b_registers(b)),
                c_registers(c).contiguous(), torch.zeros(N_CASES, 32, 4))
        largest = torch.maximum(products.abs().amax(2), c.abs().double())
        cases.append(Case(entry="try_mma", args=args, outputs=(3,), grid=N_CASES, block=32,
                          **_sums(c_registers(d), c_registers(largest), 17, is_exact)))
    return cases


def _ldmatrix(draw: torch.Generator, dtype: torch.dtype) -> list[Case]:
    rows = _patterns(draw, (N_CASES, 32, 8))
    order = torch.stack([torch.randperm(32, generator=draw) for _ in range(N_CASES)])
    # Lane 8m + r points to row r of matrix m.
    matrices = torch.stack([x[each] for x, each in zip(rows, order, strict=True)])
    matrices = matrices.view(N_CASES, 4, 8, 8)
    column = LANE[:, None] % 4 * 2 + torch.arange(2)
    row = (LANE // 4)[:, None].expand(32, 2)
    plain = matrices[:, :, row, column]         # (cases, matrix, lane, 2)
    transposed = matrices[:, :, column, row]
    args = (rows.view(dtype), order.int(), torch.zeros(N_CASES, 32, 4, dtype=torch.int32),
            torch.zeros(N_CASES, 32, 4, dtype=torch.int32))
    expected = tuple(_as_ints(x.transpose(1, 2)).view(N_CASES, 32, 4) for x in (plain, transposed))
    return [Case(entry="try_ldmatrix", args=args, outputs=(2, 3), expected=expected, grid=N_CASES,
                 block=32, shared_bytes=512)]


def _cp_async(draw: torch.Generator, dtype: torch.dtype) -> list[Case]:
    x, before = _patterns(draw, (64, 8)), _patterns(draw, (N_CASES, 32, 8))
    place = torch.randint(64, (N_CASES, 32), generator=draw)
    is_there = torch.randint(2, (N_CASES, 32), generator=draw)
    first = torch.where(is_there[..., None].bool(), x[place], 0)
    second = first[:, LANE ^ 1]
    args = (x.view(dtype), before.view(dtype), place.int(), is_there.int(),
            torch.zeros(N_CASES, 32, 2, 8, dtype=dtype))
    return [Case(entry="try_cp_async", args=args, outputs=(4,), grid=N_CASES, block=32,
                 expected=(torch.stack([first, second], dim=2).short(),), shared_bytes=512)]


# --- what only Hopper has -------------------------------------------------------------------------


def swizzled(tile: Tensor) -> Tensor:
    """Returns rows of 64 numbers as the 128-byte swizzle stores them: chunk c of row r at c ^ r%8.

    tile: (rows, 64); a chunk is 8 numbers.
    """
    n_rows = len(tile)
    chunk = torch.arange(8) ^ (torch.arange(n_rows) % 8)[:, None]
    return tile.view(n_rows, 8, 8).gather(1, chunk[..., None].expand(n_rows, 8, 8)).view(n_rows, 64)


# Where a box begins, as (x, y, z, w): inside, over the last edge of an axis, before the first.
CORNERS = ((0, 0, 0, 0), (64, 3, 1, 1), (64, 8, 2, 0), (-8, -3, 0, -1), (0, -20, 1, 0))


def _tma(draw: torch.Generator, dtype: torch.dtype) -> list[Case]:
    whole = _patterns(draw, (2, 3, 11, 104))
    x, box, cases = whole[..., :100], (2, 1, 16, 64), []   # rows of 100 numbers with gaps of 4
    padded = torch.zeros(2 + 4, 3 + 2, 11 + 48, 100 + 144, dtype=torch.int16)
    padded[2:4, 1:4, 24:35, 72:172] = x
    for corner in CORNERS:
        first = [at + pad for at, pad in zip(reversed(corner), (2, 1, 24, 72), strict=True)]
        tile = padded[tuple(slice(at, at + n) for at, n in zip(first, box, strict=True))]
        n_numbers = tile.numel()
        args = (TensorMap(tensor=whole.view(dtype)[..., :100], box=box),
                _patterns(draw, (n_numbers,)).view(dtype),
                torch.zeros(n_numbers, dtype=dtype), n_numbers, *corner)
        cases.append(Case(
            entry="try_tma", args=args, outputs=(2,), grid=1, block=32,
            expected=(swizzled(tile.reshape(-1, 64)).flatten(),), shared_bytes=2 * n_numbers + 16))
    return cases


def _mbarrier(draw: torch.Generator, dtype: torch.dtype) -> list[Case]:
    n_rounds = 7
    given = torch.randint(-(2**31), 2**31 - 1, (n_rounds, 32), generator=draw, dtype=torch.int32)
    return [Case(entry="try_mbarrier", args=(given, torch.zeros_like(given), n_rounds),
                 outputs=(1,), expected=(given.flip(1),), grid=1, block=64, shared_bytes=144)]


def _wgmma(
    entry: str, *, a_across: bool | None, b_across: bool
) -> Callable[[torch.Generator, torch.dtype], list[Case]]:
    """Returns the cases of one form of wgmma. a_across: None if A is in registers."""
    def cases(draw: torch.Generator, dtype: torch.dtype) -> list[Case]:
        return [_wgmma_case(entry, draw, dtype, a_across, b_across, is_exact=is_exact, adds=adds)
                for is_exact, adds in ((True, 0), (True, 1), (False, 1))]
    return cases


def _wgmma_case(
    entry: str, draw: torch.Generator, dtype: torch.dtype, a_across: bool | None, b_across: bool,
    *, is_exact: bool, adds: int,
) -> Case:
    n = 4
    a, b, c = (_numbers(draw, (n, *shape), is_exact) for shape in ((64, 64), (64, 128), (64, 128)))
    a, b = a.to(dtype), b.to(dtype)
    d = a.double() @ b.double() + adds * c.double()
    # Columns of 64: a tile of B across k is (k, 64), twice; along k it is (128, 64).
    b_tile = b.view(n, 64, 2, 64).transpose(1, 2) if b_across else b.transpose(1, 2)
    if a_across is None:
        # Warp w has the rows 16w to 16w + 15; each step of k is a fragment as of mma.
        steps = a.view(n, 4, 16, 4, 16).transpose(2, 3)             # (case, warp, step, 16, 16)
        a_tile = _as_ints(a_registers(steps).transpose(2, 3))       # (case, warp, lane, step, 4)
    else:
        a_tile = a.transpose(1, 2) if a_across else a
    largest = torch.full_like(d, float(a.abs().max() * b.abs().max()))
    largest = torch.maximum(largest, torch.maximum(d.abs(), c.abs().double()))
    args = (a_tile.contiguous(), b_tile.contiguous(), wide_registers(c).contiguous(),
            torch.zeros(n, 128, 64), adds)
    return Case(entry=entry, args=args, outputs=(3,), grid=n, block=128,
                shared_bytes=2 * (64 * 64 + 64 * 128),
                **_sums(wide_registers(d), wide_registers(largest), 4 * 17, is_exact))


def wide_registers(d: Tensor) -> Tensor:
    """Returns what each thread of a warpgroup holds of D (..., 64, N): (..., 128, N / 2).

    The numbers 4i to 4i + 3 of a thread are the columns 8i + 2 (lane%4) and the next, in the rows
    16 warp + lane/4 and 8 rows further down.
    """
    thread, i = torch.arange(128)[:, None], torch.arange(d.shape[-1] // 2)
    row = thread // 32 * 16 + thread % 32 // 4 + i // 2 % 2 * 8
    return d[..., row, i // 4 * 8 + thread % 4 * 2 + i % 2]


# --- the table ------------------------------------------------------------------------------------

HALVES = (torch.bfloat16, torch.float16)
INSTRUCTIONS = (
    Instruction(name="mma.m16n8k16", file=PLAIN, cases=_mma, dtypes=HALVES),
    Instruction(name="ldmatrix x4, plain and transposed", file=PLAIN, cases=_ldmatrix),
    Instruction(name="cp.async of 16 bytes, with zero fill", file=PLAIN, cases=_cp_async),
    Instruction(name="TMA of a 4-D box, swizzled, with zero fill", file=HOPPER, cases=_tma),
    Instruction(name="mbarrier phases", file=HOPPER, cases=_mbarrier),
    Instruction(name="wgmma, A and B along k", file=HOPPER, dtypes=HALVES,
                cases=_wgmma("try_wgmma_ss", a_across=False, b_across=False)),
    Instruction(name="wgmma, A across k", file=HOPPER,
                cases=_wgmma("try_wgmma_ss_a_across", a_across=True, b_across=False)),
    Instruction(name="wgmma, B across k", file=HOPPER,
                cases=_wgmma("try_wgmma_ss_b_across", a_across=False, b_across=True)),
    Instruction(name="wgmma, A and B across k", file=HOPPER,
                cases=_wgmma("try_wgmma_ss_across", a_across=True, b_across=True)),
    Instruction(name="wgmma, A in registers", file=HOPPER,
                cases=_wgmma("try_wgmma_rs", a_across=None, b_across=False)),
    Instruction(name="wgmma, A in registers, B across k", file=HOPPER,
                cases=_wgmma("try_wgmma_rs_b_across", a_across=None, b_across=True)),
)


def _numbers(draw: torch.Generator, shape: tuple[int, ...], is_exact: bool) -> Tensor:
    """Returns fp32 numbers: small integers, whose sums no rounding changes, or normal ones."""
    if is_exact:
        return torch.randint(-8, 9, shape, generator=draw).float()
    return torch.randn(shape, generator=draw)


def _patterns(draw: torch.Generator, shape: tuple[int, ...]) -> Tensor:
    """Returns random 16 bits, for instructions that only move them.

    As integers, because some of them are no numbers, which PyTorch does not always keep.
    """
    return torch.randint(-(2**15), 2**15, shape, generator=draw, dtype=torch.int16)


def _as_ints(x: Tensor) -> Tensor:
    """Returns pairs of neighbors as registers: the first number in the lower half."""
    return x.contiguous().view(torch.int32)


def _sums(d: Tensor, largest: Tensor, n_added: int, is_exact: bool) -> dict[str, Any]:
    if is_exact:
        return {"expected": (d.float(),)}
    return {"expected": (d,), "largest": largest, "n_added": n_added}


# --- running and comparing ------------------------------------------------------------------------


@functools.cache
def source(file: str) -> Source:
    """Returns the file `instructions` or `instructions_hopper` of this folder."""
    return Source.read(file, folder=FOLDER)


def outputs_of(case: Case, program: Program, device: torch.device) -> list[Tensor]:
    """Returns what the instruction writes on a GPU, or with the device "cpu" on the emulator."""
    args = [_moved(arg, device) for arg in case.args]
    launch(program, case.entry, args, grid=case.grid, block=case.block,
           shared_bytes=case.shared_bytes)
    return [args[i].cpu() for i in case.outputs]


def _moved(arg: Any, device: torch.device) -> Any:
    if isinstance(arg, TensorMap):
        # With the gaps between its rows, which `to` would leave out.
        whole = arg.tensor.as_strided((arg.tensor.untyped_storage().nbytes() // 2,), (1,), 0)
        moved = whole.to(device, copy=True).as_strided(arg.tensor.shape, arg.tensor.stride())
        return TensorMap(tensor=moved, box=arg.box)
    return arg.to(device, copy=True) if isinstance(arg, Tensor) else arg


def complaints(case: Case, results: Sequence[Tensor]) -> list[str]:
    """Returns a line for each output that is not as it must be, with the first place and values."""
    found = []
    for j, (result, expected) in enumerate(zip(results, case.expected, strict=True)):
        if case.rounds:
            allowed = case.largest * (case.n_added * ADDITION_STEP)
            is_wrong = ~((result.double() - expected).abs() <= allowed)
        else:
            is_wrong = _bits(result) != _bits(expected)
        if is_wrong.any():
            at = tuple(is_wrong.nonzero()[0].tolist())
            values = [x[at].item() if case.rounds else hex(_bits(x)[at].item())
                      for x in (result, expected)]
            found.append(f"{case.entry}, output {j}: {int(is_wrong.sum())} of {is_wrong.numel()} "
                         f"differ; at {at} it is {values[0]}, must be {values[1]}"
                         f"{' or near it' if case.rounds else ''}")
    return found


def _bits(x: Tensor) -> Tensor:
    return x.view({2: torch.int16, 4: torch.int32}[x.element_size()])


def errors(case: Case, results: Sequence[Tensor]) -> dict[str, float]:
    """Returns how far rounded sums are from the exact ones, relative to the largest number added.

    `not_nearest`: the share of sums that are not the fp32 number nearest to the exact sum.
    `toward_zero`: of the sums with an error, the share that is nearer to zero than the exact sum.
    """
    (exact,), (result,) = case.expected, results
    off = result.double() - exact
    is_off = off != 0
    inward = (off[is_off] * exact[is_off].sign() < 0).double()
    return {"largest": (off.abs() / case.largest).max().item(),
            "mean": (off.abs() / case.largest).mean().item(),
            "not_nearest": (result != exact.float()).double().mean().item(),
            "toward_zero": inward.mean().item() if len(inward) else 0.5}


def tried(
    instruction: Instruction, *, device: torch.device, text: Source | None = None
) -> tuple[list[str], dict[str, dict[str, float]]]:
    """Returns what is wrong on the device, and the errors of the sums that it rounds, by dtype."""
    wrong, rounding = [], {}
    for dtype in instruction.dtypes:
        program = Program(source=text or source(instruction.file), real=dtype)
        for case in instruction.cases(torch.Generator().manual_seed(7), dtype):
            results = outputs_of(case, program, device)
            wrong += complaints(case, results)
            if case.rounds:
                rounding[program.real_name] = errors(case, results)
    return wrong, rounding


def steps(device: torch.device) -> list[TrialStep]:
    """Returns the steps of the part `conformance`: each instruction on the GPU, then emulated."""
    cpu = torch.device("cpu")
    return [*(TrialStep(name=each.name, run=functools.partial(_step, each, device))
              for each in INSTRUCTIONS),
            *(TrialStep(name=f"{each.name}, emulated", run=functools.partial(_step, each, cpu))
              for each in INSTRUCTIONS)]


def _step(instruction: Instruction, device: torch.device, say: Say) -> Finding:
    is_gpu = device.type == "cuda"
    if reason := why_not(instruction, device) if is_gpu else no_emulator():
        return Finding(why_not=reason)
    where = f"{instruction.name} on {'this GPU' if is_gpu else 'the emulator'}"
    wrong, rounding = tried(instruction, device=device)
    say(f"{where}: {'; '.join(wrong) or 'as documented'}")
    for name, error in rounding.items():
        say(f"  {name}: sums are off by at most {error['largest']:.2g} of the largest number "
            f"added; {100 * error['not_nearest']:.0f}% are not the nearest fp32 number, and "
            f"{100 * error['toward_zero']:.0f}% of the errors are toward zero")
    return Finding(wrong=tuple(f"{where}: {line}" for line in wrong), data={"rounding": rounding})


def why_not(instruction: Instruction, device: torch.device) -> str:
    """Returns why a GPU cannot run an instruction, or ""."""
    major, minor = torch.cuda.get_device_capability(device)
    text = source(instruction.file)
    oldest, is_only = text.architectures
    needed, own = int("".join(filter(str.isdigit, oldest))), 10 * major + minor
    if own == needed or (own > needed and not is_only):
        return ""
    return (f"it needs {oldest}{'' if is_only else ' or newer'}; this GPU has compute capability "
            f"{major}.{minor}")
