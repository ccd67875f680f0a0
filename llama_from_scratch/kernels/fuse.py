"""`fuse` swaps the plain parts of a finished model for fused kernels; `unfuse` swaps them back.

Only leaves are swapped, and no `forward` of the model is repeated here. The model's source does not
mention kernels. Its parameters stay the same tensors with the same names, so nothing changes for
checkpoints, optimizers and caches. The report lists each part that is unknown or stays plain, with
the reason.

Notebook 36.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from llama_from_scratch.config import record
from llama_from_scratch.kernels.machinery.source import REAL_NAMES
from llama_from_scratch.kernels.machinery.tensors import require_cuda
from llama_from_scratch.kernels.rms_norm import add_rms_norm, rms_norm
from llama_from_scratch.kernels.rope import rope
from llama_from_scratch.kernels.swiglu import swiglu
from llama_from_scratch.model.attention import Attention, SoftmaxAttention
from llama_from_scratch.model.feed_forward import FeedForward, SwiGLU
from llama_from_scratch.model.norm import AddNorm, RMSNorm
from llama_from_scratch.model.rope import Rope, Rotate, Unrotated
from llama_from_scratch.model.transformer import Block, Llama

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

    Matrix products, the embedding and PyTorch's own fused attention need no kernel from here, so
    they are not listed. Leaves that are fused already stay fused. `emulate` runs the same kernels
    on the CPU, hundreds of times slower, for learning and for tests.
    Raises ValueError if the parameters are on a CPU without `emulate`, on several devices, of a
    dtype that the kernels do not compute in, or on a GPU older than the compilers build for. Then
    the model is unchanged.
    """
    parameters = list(model.parameters())
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
        if type(module) in _SUCCESSORS:
            fused, reason = _SUCCESSORS[type(module)], _reason_to_keep(module, parent=model)
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
        setattr(model, name, plain)
        yield Change(name=path, plain=type(plain).__name__, fused=type(module).__name__, reason="")


def _reason_to_keep(module: nn.Module, *, parent: nn.Module) -> str:
    if isinstance(module, AddNorm):
        norm = parent.ffn_norm if isinstance(parent, Block) else None
        if not isinstance(norm, FusedRMSNorm):
            return f"kept: the norm after it is a {type(norm).__name__}, which has no kernel"
    return ""


_SUCCESSORS = {RMSNorm: FusedRMSNorm, AddNorm: FusedAddNorm, SwiGLU: FusedSwiGLU,
               Rotate: FusedRotate}
_STAY_PLAIN = (nn.Linear, nn.Embedding, Rope, SoftmaxAttention, Llama, Block, Attention,
               FeedForward, nn.ModuleList, nn.ModuleDict, nn.Sequential)
_WITHOUT_KERNEL = {Unrotated: "kept: this layer has no RoPE, so there is nothing to turn"}
