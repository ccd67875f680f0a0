"""`fuse` swaps the plain parts of a finished model for fused kernels and tells what it changed; `unfuse` swaps them back.

The model's source knows nothing of kernels, and its parameters stay the very same tensors under the very same names, so
checkpoints, optimizers and caches do not notice. What cannot be fused stays plain, and the reason is told.

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
from llama_from_scratch.model.attention import Attention, attention
from llama_from_scratch.model.feed_forward import FeedForward
from llama_from_scratch.model.kv_cache import LayerCache, Uncached
from llama_from_scratch.model.mask import Visible
from llama_from_scratch.model.norm import RMSNorm
from llama_from_scratch.model.transformer import Block

OLDEST = (7, 5)  # compute capability: the oldest that today's compilers still build for


class _Fused(nn.Module):
    """A part that computes with kernels. The plain part is kept aside, hidden from PyTorch, for `unfuse`."""

    def __init__(self, plain: nn.Module, *, emulate: bool) -> None:
        super().__init__()
        self._plain = (plain,)  # within a tuple, or its parameters would be listed twice
        self.emulate = emulate
        for name, child in plain.named_children():
            self.add_module(name, child)
        for name, parameter in plain.named_parameters(recurse=False):
            self.register_parameter(name, parameter)

    @property
    def plain(self) -> nn.Module:
        return self._plain[0]


class FusedRMSNorm(_Fused):
    """`model.norm.RMSNorm`: one pass over x instead of five."""

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        return rms_norm(x, self.weight, eps=self.plain.eps, emulate=self.emulate)


class FusedFeedForward(_Fused):
    """`model.feed_forward.FeedForward`: silu and the product in one pass."""

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        return self.w_down(swiglu(self.w_gate(x), self.w_up(x), emulate=self.emulate))


class FusedAttention(_Fused):
    """`model.attention.Attention` with RoPE: queries and keys turned in one launch."""

    def forward(
        self, x: Float[Tensor, "B T D"], *, rotation: Complex[Tensor, "#B T R"], visible: Visible, cache: LayerCache | Uncached
    ) -> Float[Tensor, "B T D"]:
        q, k, v = (w(x).view(*x.shape[:2], -1, self.plain.head_dim) for w in (self.wq, self.wk, self.wv))
        q, k = rope(q, k, rotation=rotation, emulate=self.emulate)
        keys, values = cache.append(k, v)
        return self.wo(attention(q, keys, v=values, visible=visible).flatten(-2))


class FusedBlock(_Fused):
    """`model.transformer.Block`: the first addition to the residual stream happens in the second norm's pass."""

    def forward(
        self, x: Float[Tensor, "B T D"], *, rotation: Complex[Tensor, "#B T R"], visible: Visible, cache: LayerCache | Uncached
    ) -> Float[Tensor, "B T D"]:
        attended = self.attention(self.attention_norm(x), rotation=rotation, visible=visible, cache=cache)
        normed, x = add_rms_norm(x, attended, weight=self.ffn_norm.weight, eps=self.ffn_norm.plain.eps, emulate=self.emulate)
        return x + self.feed_forward(normed)


@record
class Change:
    """One part: its name in the model, what it was, and what it is now. `reason` says why a part was left as it is."""

    name: str
    plain: str
    fused: str
    reason: str


@record
class Report:
    """What `fuse` did, part by part; printing it gives a table."""

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
    """Puts kernels into `model`, in place, and returns what changed. Parts that are fused already stay so.

    `emulate` runs the same kernels on the CPU, hundreds of times slower: to learn, and to test. Raises ValueError if the
    parameters are on a CPU and it is not set, on several devices, of a dtype the kernels do not compute in, or on a GPU older
    than the compilers build for; the model is unchanged then.
    """
    parameters = list(model.parameters())
    if not parameters:
        raise ValueError("fuse needs a model with parameters; this one has none")
    first = parameters[0]
    kinds = sorted({f"{p.dtype} on {p.device}" for p in parameters})
    if len(kinds) > 1 or first.dtype not in REAL_NAMES:
        raise ValueError(f"the kernels compute in one of {', '.join(map(str, REAL_NAMES))}, on one device; the model has "
                         f"{', '.join(kinds)}. Convert it first, with model.to(device, dtype)")
    require_cuda("fuse", first, emulate=emulate)
    if first.is_cuda and (capability := torch.cuda.get_device_capability(first.device)) < OLDEST:
        name, (major, minor) = torch.cuda.get_device_name(first.device), capability
        raise ValueError(f"the kernels need compute capability {OLDEST[0]}.{OLDEST[1]} (Turing, 2018) or newer; {name} has "
                         f"{major}.{minor}. Keep the plain model")
    changes = tuple(_swap_below(model, "", emulate=emulate))
    if not changes and not any(isinstance(module, _Fused) for module in model.modules()):
        raise ValueError(f"fuse knows {', '.join(part.__name__ for part in _SUCCESSORS)} of llama_from_scratch.model; "
                         f"{type(model).__name__} has none of them inside")
    return Report(changes=changes)


def unfuse(model: nn.Module) -> Report:
    """Puts the plain parts back, in place, and returns what changed."""
    changes = []
    for name, module in model.named_children():
        changes += unfuse(module).changes
        if isinstance(module, _Fused):
            plain = module.plain.train(module.training)
            for child, part in [*module.named_children(), *module.named_parameters(recurse=False)]:
                setattr(plain, child, part)
            setattr(model, name, plain)
            changes.append(Change(name=name, plain=type(plain).__name__, fused=type(module).__name__, reason=""))
    return Report(changes=tuple(changes))


def _swap_below(model: nn.Module, prefix: str, *, emulate: bool) -> Iterator[Change]:
    for name, module in model.named_children():
        if isinstance(module, _Fused) or type(module) not in _SUCCESSORS:
            yield from _swap_below(module, f"{prefix}{name}.", emulate=emulate)
            continue
        fused = _SUCCESSORS[type(module)]
        yield from _swap_below(module, f"{prefix}{name}.", emulate=emulate)
        reason = _reason_to_keep(module)
        if not reason:
            setattr(model, name, fused(module, emulate=emulate))
        yield Change(name=f"{prefix}{name}", plain=type(module).__name__, fused=fused.__name__, reason=reason)


def _reason_to_keep(module: nn.Module) -> str:
    if isinstance(module, Attention) and not module.has_rope:
        return "kept: this layer has no RoPE, and attention itself is PyTorch's fused kernel already"
    if isinstance(module, Block) and not isinstance(module.ffn_norm, FusedRMSNorm):
        return f"kept: its second norm is a {type(module.ffn_norm).__name__}, which the addition cannot join"
    return ""


_SUCCESSORS = {RMSNorm: FusedRMSNorm, FeedForward: FusedFeedForward, Attention: FusedAttention, Block: FusedBlock}
