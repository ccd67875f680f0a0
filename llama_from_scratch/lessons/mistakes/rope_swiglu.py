"""Mistakes that readers make in chapter 32."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


# --- 1: the bytes of SwiGLU -----------------------------------------------------------------------


@listed("32.1", of="swiglu_bytes")
def numbers_not_bytes(n_tokens: int, ffn_dim: int, itemsize: int) -> tuple[int, int]:
    """numbers are counted, not bytes: each takes `itemsize`"""
    return 3 * n_tokens * ffn_dim, 5 * n_tokens * ffn_dim


@listed("32.1", of="swiglu_bytes")
def bits_not_bytes(n_tokens: int, ffn_dim: int, itemsize: int) -> tuple[int, int]:
    """bits are counted: `itemsize` is in bytes already"""
    n = 8 * n_tokens * ffn_dim * itemsize
    return 3 * n, 5 * n


@listed("32.1", of="swiglu_bytes")
def as_plain_pytorch(n_tokens: int, ffn_dim: int, itemsize: int) -> tuple[int, int]:
    """plain PyTorch's round trips are counted; a kernel keeps silu(gate) in registers"""
    n = n_tokens * ffn_dim * itemsize
    return 5 * n, 9 * n


@listed("32.1", of="swiglu_bytes")
def without_upstream(n_tokens: int, ffn_dim: int, itemsize: int) -> tuple[int, int]:
    """the gradient of y is left out: the backward pass reads it, too"""
    n = n_tokens * ffn_dim * itemsize
    return 3 * n, 4 * n


@listed("32.1", of="swiglu_bytes")
def only_read(n_tokens: int, ffn_dim: int, itemsize: int) -> tuple[int, int]:
    """only what is read is counted; what is written moves, too"""
    n = n_tokens * ffn_dim * itemsize
    return 2 * n, 3 * n


@listed("32.1", of="swiglu_bytes")
def backward_first(n_tokens: int, ffn_dim: int, itemsize: int) -> tuple[int, int]:
    """the two results are exchanged: forward comes first"""
    n = n_tokens * ffn_dim * itemsize
    return 5 * n, 3 * n


# --- 2: ReGLU -------------------------------------------------------------------------------------


@listed("32.2", of="reglu_line")
def negative_part() -> str:
    """negative gates pass and positive ones are 0; it is the other way around"""
    return "y[i] = narrow((g > 0 ? 0 : g) * widen(up[i]));"


@listed("32.2", of="reglu_line")
def without_up() -> str:
    """the gate is not multiplied by `up`"""
    return "y[i] = narrow(g > 0 ? g : 0);"


@listed("32.2", of="reglu_line")
def gate_and_up_exchanged() -> str:
    """gate and up are exchanged: the gate is cut off at 0, not `up`"""
    return "accum u = widen(up[i]); y[i] = narrow((u > 0 ? u : 0) * g);"


@listed("32.2", of="reglu_line")
def product_cut_off() -> str:
    """the product is cut off at 0: only the gate is, and the product may be negative"""
    return "accum p = g * widen(up[i]); y[i] = narrow(p > 0 ? p : 0);"


@listed("32.2", of="reglu_line")
def only_a_switch() -> str:
    """the gate only switches `up` on and off; an open gate also multiplies it by g"""
    return "y[i] = narrow((g > 0 ? 1 : 0) * widen(up[i]));"


# --- 3: the share of angles -----------------------------------------------------------------------


@listed("32.3", of="share_of_angles")
def fetched_once_by_all_rungs(rung: int, n_heads: int) -> float:
    """rung 1 fetches the angles again for each head, not once"""
    return 8 / (8 + 8 * n_heads)


@listed("32.3", of="share_of_angles")
def fetched_anew_by_all_rungs(rung: int, n_heads: int) -> float:
    """rung 2 fetches the angles once for all heads, not again for each"""
    return 8 * n_heads / (8 * n_heads + 8 * n_heads)


@listed("32.3", of="share_of_angles")
def without_writes(rung: int, n_heads: int) -> float:
    """the 4 bytes that go out are left out: the kernel asks for reads and for writes"""
    angles = 8 * n_heads if rung == 1 else 8
    return angles / (angles + 4 * n_heads)


@listed("32.3", of="share_of_angles")
def angles_in_bf16(rung: int, n_heads: int) -> float:
    """the angles are counted in bf16; cos and sin are fp32 and take 8 bytes"""
    angles = 4 * n_heads if rung == 1 else 4
    return angles / (angles + 8 * n_heads)


@listed("32.3", of="share_of_angles")
def ratio_not_share(rung: int, n_heads: int) -> float:
    """the angles are divided by the other bytes: a share is a part of all bytes"""
    return 1.0 if rung == 1 else 1 / n_heads


@listed("32.3", of="share_of_angles")
def rungs_exchanged(rung: int, n_heads: int) -> float:
    """the rungs are exchanged: rung 1 fetches the angles again for each head"""
    angles = 8 if rung == 1 else 8 * n_heads
    return angles / (angles + 8 * n_heads)


# --- 4: what is kept for the backward pass --------------------------------------------------------


def _kept(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    kept: list[Tensor] = []

    def note(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        function(*(x.detach().requires_grad_() for x in inputs))
    return kept


@listed("32.4", of="kept_bytes")
def kept_numbers(function: Callable[..., Tensor], *inputs: Tensor) -> int:
    """numbers are counted, not bytes: `x.numel()` instead of `x.nbytes`"""
    return sum(x.numel() for x in _kept(function, inputs))


@listed("32.4", of="kept_bytes")
def kept_tensors(function: Callable[..., Tensor], *inputs: Tensor) -> int:
    """tensors are counted, not their bytes"""
    return len(_kept(function, inputs))


@listed("32.4", of="kept_bytes")
def without_gradients(function: Callable[..., Tensor], *inputs: Tensor) -> int:
    """nothing is noted: without an input that requires a gradient PyTorch keeps nothing, and the
    hook must be passed as the first argument"""
    return 0


@listed("32.4", of="kept_bytes")
def bytes_of_inputs(function: Callable[..., Tensor], *inputs: Tensor) -> int:
    """the inputs are counted; a function may keep other tensors, such as silu(gate)"""
    return sum(x.nbytes for x in inputs)


@listed("32.4", of="kept_bytes")
def with_result(function: Callable[..., Tensor], *inputs: Tensor) -> int:
    """the result is counted in addition to what the hook gets"""
    return sum(x.nbytes for x in _kept(function, inputs)) + function(*inputs).nbytes


# --- 5: a sly edit --------------------------------------------------------------------------------

_ROW = "const float* row = rotation + (size_t)(token % n_rows)"


@listed("32.5", of="sly_edit")
def beyond_the_table() -> tuple[str, str]:
    """without the remainder, the second sequence reads after the end of the table: keep the row
    inside of the table, at a wrong place"""
    return _ROW, _ROW.replace("token % n_rows", "token")


@listed("32.5", of="sly_edit")
def always_row_0() -> tuple[str, str]:
    """every token reads row 0, so that one sequence is wrong, too"""
    return _ROW, _ROW.replace("token % n_rows", "0")


@listed("32.5", of="sly_edit")
def row_from_the_end() -> tuple[str, str]:
    """the rows are read from the last to the first, so that one sequence is wrong, too"""
    return _ROW, _ROW.replace("token % n_rows", "n_rows - 1 - token % n_rows")


@listed("32.5", of="sly_edit")
def another_rung() -> tuple[str, str]:
    """the results do not change: the edit is in code that the last rung does not run, or keeps
    every value"""
    return "accum cosine = angle[0], sine = angle[1] * direction;", (
        "accum cosine = angle[0], sine = angle[0] * direction;")


# --- 6: which numbers differ ----------------------------------------------------------------------


def _differs(gate: Tensor, up: Tensor) -> Tensor:
    once = (F.silu(gate.float()) * up.float()).bfloat16()
    return (F.silu(gate) * up != once).float()


@listed("32.6", of="shares_that_differ")
def shares_of_all(gate: Tensor, up: Tensor) -> tuple[float, float]:
    """each count is divided by the number of all gates: divide it by the gates of its group"""
    differs = _differs(gate, up)
    return tuple((differs * group).mean().item() for group in (gate > 0, gate < 0))


@listed("32.6", of="shares_that_differ")
def shut_first(gate: Tensor, up: Tensor) -> tuple[float, float]:
    """the two shares are exchanged: open gates come first"""
    differs = _differs(gate, up)
    return differs[gate < 0].mean().item(), differs[gate > 0].mean().item()


@listed("32.6", of="shares_that_differ")
def shares_that_agree(gate: Tensor, up: Tensor) -> tuple[float, float]:
    """the numbers that agree are counted, not those that differ"""
    differs = _differs(gate, up)
    return 1 - differs[gate > 0].mean().item(), 1 - differs[gate < 0].mean().item()


@listed("32.6", of="shares_that_differ")
def never_rounded(gate: Tensor, up: Tensor) -> tuple[float, float]:
    """the version that rounds once is not rounded at its end: `.bfloat16()` is missing"""
    differs = (F.silu(gate) * up != F.silu(gate.float()) * up.float()).float()
    return differs[gate > 0].mean().item(), differs[gate < 0].mean().item()


@listed("32.6", of="shares_that_differ")
def grouped_by_up(gate: Tensor, up: Tensor) -> tuple[float, float]:
    """the groups are made by the sign of `up`; a gate is open or shut by its own sign"""
    differs = _differs(gate, up)
    return differs[up > 0].mean().item(), differs[up < 0].mean().item()
