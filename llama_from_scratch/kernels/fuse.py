"""`fuse` swaps the plain parts of a finished model for fused kernels; `unfuse` swaps them back.

Only leaves are swapped, and no `forward` of the model is repeated here. The model's source does not
mention kernels. Its parameters stay the same tensors with the same names, so nothing changes for
checkpoints, optimizers and caches. The report lists each part that is unknown or stays plain, with
the reason.

Notebook 36.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn

from llama_from_scratch.config import record
from llama_from_scratch.kernels.attention import FAST_WIDTHS, attention, has_fast_kernel
from llama_from_scratch.kernels.decode import decode_attention
from llama_from_scratch.kernels.machinery.source import REAL_NAMES
from llama_from_scratch.kernels.machinery.tensors import require_cuda
from llama_from_scratch.kernels.quantized import int4_linear, int8_linear
from llama_from_scratch.kernels.rms_norm import add_rms_norm, rms_norm
from llama_from_scratch.kernels.rope import rope
from llama_from_scratch.kernels.step_graph import StepGraphs, can_record, waits
from llama_from_scratch.kernels.swiglu import swiglu
from llama_from_scratch.model.adapted import AdaptedLinear
from llama_from_scratch.model.attention import Attention, SoftmaxAttention
from llama_from_scratch.model.feed_forward import FeedForward, SwiGLU
from llama_from_scratch.model.kv_cache import KVCache
from llama_from_scratch.model.mask import CachedRows, Everything, GivenMask, Visible
from llama_from_scratch.model.moe import BestScores, MoE, RoutedExperts, Router
from llama_from_scratch.model.norm import AddNorm, HeadNorm, RMSNorm
from llama_from_scratch.model.quantized import Int4Linear, Int8Linear
from llama_from_scratch.model.rope import Rope, Rotate, Unrotated
from llama_from_scratch.model.temperature import Tempered, Unscaled
from llama_from_scratch.model.transformer import Block, Llama, NextLogits
from llama_from_scratch.model.visibility import Visibility
from llama_from_scratch.vision.adapter import VisionLlama
from llama_from_scratch.vision.cross_attention import CrossAttention, CrossBlock, SeeingBlock
from llama_from_scratch.vision.early_fusion import FusionLlama
from llama_from_scratch.vision.encoder import Gate, VisionModel
from llama_from_scratch.vision.fusion_encoder import TileModel

OLDEST = (7, 5)  # compute capability: the oldest that today's compilers still build for


class FusedPart(nn.Module):
    """A leaf that computes with a kernel. It keeps the plain leaf, hidden from PyTorch."""

    def __init__(self, plain: nn.Module, *, emulate: bool) -> None:
        super().__init__()
        self._plain = (plain,)  # in a tuple, because PyTorch would list its parameters twice
        self.emulate = emulate
        self.stands_for = type(plain)
        for name, parameter in plain.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in plain.named_buffers(recurse=False):
            self.register_buffer(name, buffer)

    @property
    def plain(self) -> nn.Module:
        return self._plain[0]


class FusedRMSNorm(FusedPart):
    """`model.norm.RMSNorm`: one pass over x instead of five."""

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        return rms_norm(x, self.weight, eps=self.plain.eps, emulate=self.emulate)


class FusedAddNorm(FusedPart):
    """`model.norm.AddNorm`: the addition to the residual stream happens in the norm's pass."""

    def forward(
        self, x: Float[Tensor, "*batch D"], addition: Float[Tensor, "*batch D"], norm: FusedRMSNorm
    ) -> tuple[Float[Tensor, "*batch D"], Float[Tensor, "*batch D"]]:
        # Under autocast, the stream is in fp32 and what a block adds is in bf16.
        addition = addition.to(torch.promote_types(x.dtype, addition.dtype))
        return add_rms_norm(x, addition, weight=norm.weight, eps=norm.plain.eps,
                            emulate=self.emulate)


class FusedSwiGLU(FusedPart):
    """`model.feed_forward.SwiGLU`: silu and the product in one pass."""

    def forward(
        self, gate: Float[Tensor, "*batch F"], up: Float[Tensor, "*batch F"]
    ) -> Float[Tensor, "*batch F"]:
        return swiglu(gate, up, emulate=self.emulate)


class FusedRotate(FusedPart):
    """`model.rope.Rotate`: queries and keys turned in one launch."""

    def forward(
        self, q: Float[Tensor, "B T H K"], k: Float[Tensor, "B T G K"],
        rotation: Complex[Tensor, "#B T R"],
    ) -> tuple[Float[Tensor, "B T H K"], Float[Tensor, "B T G K"]]:
        return rope(q, k, rotation=rotation, emulate=self.emulate)


class FusedAttention(FusedPart):
    """`model.attention.SoftmaxAttention`: the scores are never stored, masks are rules.

    The new token of a static cache goes to `decode_attention`. A table of any pattern
    (`GivenMask`), and on a GPU numbers that no tensor-core kernel takes, such as fp32, go to
    PyTorch's attention, which is faster there than the scalar kernel.
    """

    def forward(
        self, q: Float[Tensor, "B T H K"], k: Float[Tensor, "B S G K"],
        v: Float[Tensor, "B S G K"], visible: Visible | CachedRows | GivenMask | Everything,
    ) -> Float[Tensor, "B T H K"]:
        if isinstance(visible, CachedRows):
            return decode_attention(q, k, v, lengths=visible.lengths, starts=visible.starts,
                                    chunk_size=visible.chunk_size, emulate=self.emulate)
        if isinstance(visible, GivenMask) or not (self.emulate or has_fast_kernel(q)):
            return self.plain(q, k, v, visible)
        return attention(q, k, v, visible=visible, emulate=self.emulate)


class FusedNextLogits(FusedPart):
    """`model.transformer.NextLogits`: steps of one token are recorded and repeated."""

    def __init__(self, plain: nn.Module, *, emulate: bool) -> None:
        super().__init__(plain, emulate=emulate)
        self.graphs = StepGraphs()

    def forward(
        self, model: Llama, ids: Int[Tensor, "B T"], *, positions: Int[Tensor, "#B T"] | None,
        documents: Int[Tensor, "#B T"] | None, cache: KVCache,
    ) -> Float[Tensor, "B V"]:
        if can_record(model, ids, cache=cache):
            return self.graphs.step(model, ids, cache=cache)
        return self.plain(model, ids, positions=positions, documents=documents, cache=cache)

    def _apply(self, fn, recurse=True):  # torch calls this for .to(), .half(), .cuda()
        self.graphs.forget()
        return super()._apply(fn, recurse)


class FusedInt8Linear(FusedPart):
    """`model.quantized.Int8Linear`: the weights are multiplied as they are unpacked."""

    @property
    def in_features(self) -> int:
        return self.plain.in_features

    @property
    def out_features(self) -> int:
        return self.plain.out_features

    def forward(self, x: Float[Tensor, "*batch F"]) -> Float[Tensor, "*batch D"]:
        y = int8_linear(x, self.numbers, scale=self.scale, emulate=self.emulate)
        return y if self.plain.bias is None else y + self.bias


class FusedInt4Linear(FusedPart):
    """`model.quantized.Int4Linear`: the weights are multiplied as they are unpacked."""

    @property
    def in_features(self) -> int:
        return self.plain.in_features

    @property
    def out_features(self) -> int:
        return self.plain.out_features

    def forward(self, x: Float[Tensor, "*batch F"]) -> Float[Tensor, "*batch D"]:
        minimum = None if self.plain.minimum is None else self.minimum
        y = int4_linear(x, self.words, scale=self.scale, minimum=minimum, emulate=self.emulate)
        return y if self.plain.bias is None else y + self.bias


@record
class Change:
    """One leaf: its name in the model, what it was, and what it is now.

    `reason`: why it was left as it is; empty if it was changed.
    """

    name: str
    plain: str
    fused: str
    reason: str


@record
class Report:
    """What `fuse` did, leaf by leaf. It prints as a table."""

    changes: tuple[Change, ...]

    @property
    def n_fused(self) -> int:
        return sum(not change.reason for change in self.changes)

    def __str__(self) -> str:
        rows = [(c.name, c.plain, c.reason or c.fused) for c in self.changes]
        widths = [max(len(row[i]) for row in rows) for i in range(2)] if rows else [0, 0]
        lines = [f"{name:<{widths[0]}}  {plain:<{widths[1]}}  {now}" for name, plain, now in rows]
        return "\n".join([*lines, f"{self.n_fused} of {len(self.changes)} parts fused"])


def fuse(model: nn.Module, *, emulate: bool = False) -> Report:
    """Puts kernels into `model`, in place, and returns what changed and what did not.

    Matrix products and the embedding need no kernel from here, so they are not listed. Leaves that
    are fused already stay fused. `emulate` runs the same kernels
    on the CPU, hundreds of times slower, for learning and for tests.
    Raises ValueError if the parameters are on a CPU without `emulate`, on several devices, of a
    dtype that the kernels do not compute in, or on a GPU older than the compilers build for. Then
    the model is unchanged.
    """
    # No kernel reads the adapters, which may have another dtype than what they are next to.
    parameters = [p for module in model.modules() if type(module) is not AdaptedLinear
                  for p in module.parameters(recurse=False)]
    if not parameters:
        raise ValueError("fuse needs a model with parameters; this one has none")
    first = parameters[0]
    kinds = sorted({f"{p.dtype} on {p.device}" for p in parameters})
    if len(kinds) > 1 or first.dtype not in REAL_NAMES:
        raise ValueError(f"the kernels compute in one of {', '.join(map(str, REAL_NAMES))}, on one "
                         f"device; the model has {', '.join(kinds)}. Convert it first, with "
                         "model.to(device, dtype)")
    require_cuda("fuse", first, emulate=emulate)
    if first.is_cuda and (capability := torch.cuda.get_device_capability(first.device)) < OLDEST:
        name, (major, minor) = torch.cuda.get_device_name(first.device), capability
        raise ValueError(f"the kernels need compute capability {OLDEST[0]}.{OLDEST[1]} (Turing, "
                         f"2018) or newer; {name} has {major}.{minor}. Keep the plain model")
    if not any(isinstance(module, FusedPart) or type(module) in _SUCCESSORS
               for module in model.modules()):
        raise ValueError(f"fuse replaces {', '.join(part.__name__ for part in _SUCCESSORS)} of "
                         f"llama_from_scratch.model; {type(model).__name__} contains none of them. "
                         "Pass a Llama or one of its blocks")
    return Report(changes=tuple(_swap_below(model, "", emulate=emulate)))


def unfuse(model: nn.Module) -> Report:
    """Puts the plain leaves back, in place, and returns what changed."""
    return Report(changes=tuple(_restore_below(model, "")))


def _swap_below(model: nn.Module, prefix: str, *, emulate: bool) -> Iterator[Change]:
    for name, module in list(model.named_children()):
        path, kind = f"{prefix}{name}", type(module).__name__
        if type(module) in (VisionModel, TileModel):
            yield Change(name=path, plain=kind, fused="", reason=_EYES_STAY_PLAIN)
        elif type(module) in _SUCCESSORS:
            fused = _SUCCESSORS[type(module)]
            reason = _reason_to_keep(module, parent=model, emulate=emulate)
            if not reason:
                setattr(model, name, fused(module, emulate=emulate).train(module.training))
            yield Change(name=path, plain=kind, fused=fused.__name__, reason=reason)
        elif not isinstance(module, FusedPart):
            if type(module) not in _STAY_PLAIN:
                reason = _WITHOUT_KERNEL.get(type(module), f"kept: no kernel is known for {kind}")
                yield Change(name=path, plain=kind, fused="", reason=reason)
            yield from _swap_below(module, f"{path}.", emulate=emulate)


def _restore_below(model: nn.Module, prefix: str) -> Iterator[Change]:
    for name, module in list(model.named_children()):
        path = f"{prefix}{name}"
        if not isinstance(module, FusedPart):
            yield from _restore_below(module, f"{path}.")
            continue
        plain = module.plain.train(module.training)
        for parameter_name, parameter in module.named_parameters(recurse=False):
            setattr(plain, parameter_name, parameter)
        for buffer_name, buffer in module.named_buffers(recurse=False):
            setattr(plain, buffer_name, buffer)
        setattr(model, name, plain)
        yield Change(name=path, plain=type(plain).__name__, fused=type(module).__name__, reason="")


def _reason_to_keep(module: nn.Module, *, parent: nn.Module, emulate: bool) -> str:
    if isinstance(module, AddNorm):
        norm = parent.ffn_norm if isinstance(parent, Block) else None
        if not isinstance(norm, FusedRMSNorm):
            return f"kept: the norm after it is a {type(norm).__name__}, which has no kernel"
    if isinstance(module, NextLogits) and isinstance(parent, Llama) and waits(parent):
        return "kept: a step through experts waits for the device, so it cannot be recorded"
    if isinstance(module, SoftmaxAttention):
        if isinstance(parent, CrossAttention):
            return "kept: which images a token sees is a table, which PyTorch's attention takes"
        if isinstance(parent, Attention) and not emulate and parent.head_dim not in FAST_WIDTHS:
            return (f"kept: the fast kernels take heads of width "
                    f"{' or '.join(map(str, FAST_WIDTHS))}; these have {parent.head_dim}")
    return ""


_SUCCESSORS = {RMSNorm: FusedRMSNorm, AddNorm: FusedAddNorm, SwiGLU: FusedSwiGLU,
               Rotate: FusedRotate, SoftmaxAttention: FusedAttention,
               NextLogits: FusedNextLogits, Int8Linear: FusedInt8Linear,
               Int4Linear: FusedInt4Linear}
_STAY_PLAIN = (nn.Linear, AdaptedLinear, nn.Embedding, Rope, Llama, Block, Attention,
               FeedForward, nn.ModuleList, nn.ModuleDict, nn.Sequential, VisionLlama, FusionLlama,
               SeeingBlock, CrossBlock, CrossAttention, Gate, MoE, RoutedExperts, Router,
               nn.Identity, Unscaled, Visibility)
_WITHOUT_KERNEL = {
    Unrotated: "kept: this layer has no RoPE, so there is nothing to turn",
    HeadNorm: "kept: the norm of single heads has no kernel",
    Tempered: "kept: temperature tuning has no kernel",
    BestScores: "kept: the choice of experts has no kernel"}
_EYES_STAY_PLAIN = "kept: an image goes through the encoder once, and its LayerNorms have no kernel"
