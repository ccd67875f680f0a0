"""RoPE as one kernel: all query and key heads turned in one pass, the angles read once per token.

Backward is the same kernel with the angle's sign changed, because a rotation is an orthogonal
matrix. It needs only the table of rotations from the forward pass, so q and k are not kept. The
arithmetic is fp32 for every dtype, as in the plain model.

Notebook 32. The plain code is `model.rope`, notebook 12. Source: Su et al., RoFormer,
arXiv:2104.09864, section 3.2.
"""

from collections.abc import Callable

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.kernels.machinery.ladder import ladder, rung_named
from llama_from_scratch.kernels.machinery.launch import launch, program
from llama_from_scratch.kernels.machinery.tensors import aligned, n_processors, require_cuda

THREADS, VECTOR_BYTES = 256, 16   # as in rope.cu
# At least this many: several times what a processor holds at once, so that few idle at the end.
BLOCKS_PER_PROCESSOR = 32
LAYOUTS = ("interleaved", "half")


@record
class RopeRung:
    """One entry point of rope.cu, and what one of its threads works on at a time.

    is_by_vector: whether that is whole vectors of 16 bytes; otherwise it is one pair.
    heads: the number of heads that it works on at the same time.
    is_block_per_head: whether every head has blocks of its own; otherwise a block visits several
    heads.
    """

    entry: str
    is_by_vector: bool = False
    heads: int = 1
    is_block_per_head: bool = False


RUNGS = ladder(
    RopeRung(entry="rope_1", is_block_per_head=True),
    RopeRung(entry="rope_2"),
    RopeRung(entry="rope", is_by_vector=True, heads=2),
)


def rope(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T G K"],
    *,
    rotation: Complex[Tensor, "#B T R"],
    layout: str = "interleaved",
    emulate: bool = False,
) -> tuple[Float[Tensor, "B T H K"], Float[Tensor, "B T G K"]]:
    """Returns new q and k, with every pair of channels turned by its token's rotation.

    Differentiable in q and k. In the layout "interleaved", which Meta's and our model use, pairs
    are the neighbors (2r, 2r+1). In "half", which Hugging Face uses, pairs are (r, r + K/2).
    `rotation` is complex64, from `model.rope.rope_rotation`; its batch axis may be 1.

    Raises ValueError for shapes, dtypes or devices that do not fit, and for CPU tensors unless
    `emulate`.
    """
    require_cuda("rope", q, emulate=emulate)
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}; got {layout!r}")
    return torch.ops.llama_from_scratch.rope(q, k, rotation, layout == "half", False)


def run(
    q: Tensor, k: Tensor, *, rotation: Tensor, is_half: bool = False, is_backward: bool = False,
    rung: str | None = None, n_groups: int | None = None,
    launcher: Callable[..., object] | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns q and k turned, by the fastest rung that the head's width allows, or by `rung`.

    Autograd does not record it. n_groups: the number of blocks that divide the heads of a token
    among them. launcher: a function to call instead of `launch`, with the same arguments, such as
    `emulator.trace.trace`.
    """
    q, k, table = aligned(q), aligned(k), aligned(torch.view_as_real(rotation))
    B, T, H, K = q.shape
    n_heads, vector = H + k.shape[2], VECTOR_BYTES // q.dtype.itemsize
    is_whole = K // 2 % vector == 0
    fastest = [each for each in RUNGS.values() if is_whole or not each.is_by_vector][-1]
    chosen = rung_named(rung, RUNGS) if rung else fastest
    if chosen.is_by_vector and not is_whole:
        raise ValueError(f"this rung moves {vector} numbers at a time, so half a head must be a "
                         f"multiple of that; got {K // 2}. Leave `rung` out: rope then chooses one "
                         "that fits")
    pairs = vector if chosen.is_by_vector else 1
    width = -(-(K // 2) // pairs)
    block = min(width, THREADS), max(THREADS // width, 1)
    n_blocks, most_groups = -(-B * T // block[1]), -(-n_heads // chosen.heads)
    if chosen.is_block_per_head:
        n_groups = n_heads
    elif n_groups is None and n_blocks and n_heads:
        wanted = -(-BLOCKS_PER_PROCESSOR * n_processors(q.device) // n_blocks)
        # With the same number of heads each, except the last.
        n_groups = -(-most_groups // -(-most_groups // wanted))
    q_out, k_out = torch.empty_like(q), torch.empty_like(k)
    if n_blocks and n_heads:
        direction = -1.0 if is_backward else 1.0
        sizes = [B * T, table.shape[0] * T, H, k.shape[2], K, int(is_half)]
        (launcher or launch)(program("rope", q.dtype), chosen.entry,
                             [q, k, table, q_out, k_out, *sizes, direction],
                             grid=(n_blocks, n_groups, -(-width // block[0])), block=block)
    return q_out, k_out


def _check(q: Tensor, k: Tensor, rotation: Tensor) -> None:
    if (q.ndim != 4 or k.ndim != 4 or not q.shape[3]
            or (*k.shape[:2], k.shape[3]) != (*q.shape[:2], q.shape[3])):
        raise ValueError("q (B, T, H, K) and k (B, T, G, K) may differ only in the number of heads"
                         f"; got {tuple(q.shape)} and {tuple(k.shape)}")
    B, T, _, K = q.shape
    if K % 2:
        raise ValueError(
            f"RoPE turns pairs of channels, so the width of a head must be even; got {K}")
    if rotation.ndim != 3 or rotation.shape[0] not in (1, B) or rotation.shape[1:] != (T, K // 2):
        raise ValueError(f"rotation must be ({B} or 1, {T}, {K // 2}) for q {tuple(q.shape)}: one "
                         f"number per token and pair; got {tuple(rotation.shape)}. Use "
                         "model.rope.rope_rotation(positions, freq_R)")
    if q.dtype != k.dtype or rotation.dtype != torch.complex64:
        raise ValueError("q and k must share a dtype, and rotation must be complex64 at any dtype: "
                         f"in bf16, far positions would lose their angle; got {q.dtype}, {k.dtype} "
                         f"and {rotation.dtype}. Convert with .to(...)")
    if not q.device == k.device == rotation.device:
        raise ValueError(f"q, k and rotation must be on one device; got {q.device}, {k.device} and "
                         f"{rotation.device}. Move them with .to(q.device)")


def _rope(
    q: Tensor, k: Tensor, rotation: Tensor, is_half: bool, is_backward: bool
) -> tuple[Tensor, Tensor]:
    _check(q, k, rotation)
    return run(q, k, rotation=rotation, is_half=is_half, is_backward=is_backward)


def _fake(
    q: Tensor, k: Tensor, rotation: Tensor, is_half: bool, is_backward: bool
) -> tuple[Tensor, Tensor]:
    _check(q, k, rotation)
    return q.new_empty(q.shape), k.new_empty(k.shape)


def _save(ctx, inputs, output) -> None:
    _, _, rotation, ctx.is_half, ctx.is_backward = inputs
    if rotation.requires_grad:
        raise ValueError("rope has no gradient for its rotation, which is a table of positions; "
                         "got one that requires it. Pass rotation.detach()")
    ctx.save_for_backward(rotation)


def _turn_back(ctx, d_q: Tensor, d_k: Tensor):
    (rotation,) = ctx.saved_tensors
    turned = torch.ops.llama_from_scratch.rope(
        d_q, d_k, rotation, ctx.is_half, not ctx.is_backward)
    return *turned, None, None, None


_library = torch.library.Library("llama_from_scratch", "FRAGMENT")
_library.define("rope(Tensor q, Tensor k, Tensor rotation, bool is_half, bool is_backward)"
                " -> (Tensor, Tensor)")
for _device in ("CPU", "CUDA"):
    _library.impl("rope", _rope, _device)
torch.library.register_fake("llama_from_scratch::rope", _fake, lib=_library)
torch.library.register_autograd(
    "llama_from_scratch::rope", _turn_back, setup_context=_save, lib=_library)
