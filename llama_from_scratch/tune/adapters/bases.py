"""What adapters are added to: the linear layers of a finished model, and which model it is.

Most adapters are published without their model, and fit every model of the same sizes. On another
model than their own they compute something, but nothing useful, and no error shows it. So the
digest of all weights is saved with an adapter and compared when it is loaded.

Notebook 51.
"""

import hashlib
from collections.abc import Iterator

from torch import Tensor, nn

from llama_from_scratch.model.adapted import adapters
from llama_from_scratch.model.moe import Router
from llama_from_scratch.model.quantized import Int4Linear, Int8Linear
from llama_from_scratch.vision.encoder import PatchEmbedding

QUANTIZED = (Int8Linear, Int4Linear)


def kind_of(module: nn.Module) -> type:
    """Returns the type of a part, or the plain type that a fused part replaces."""
    return getattr(module, "stands_for", type(module))


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Returns the linear layers that can have an adapter, plain or quantized, by name.

    Routed experts have one tensor for all of them and no linear layer. Routers are left out,
    because a small change there sends tokens to other experts, and so is the embedding of patches.
    """
    left_out = {module.directions if isinstance(module, Router) else module.linear
                for module in model.modules() if isinstance(module, (Router, PatchEmbedding))}
    return {name: module for name, module in model.named_modules()
            if kind_of(module) in (nn.Linear, *QUANTIZED) and module not in left_out}


def digest(model: nn.Module, *, has_adapters: bool = False) -> str:
    """Returns the SHA-256 of all weights: 64 hexadecimal digits.

    `has_adapters`: whether the weights of the adapters count too.
    It is computed of the values in fp32, so that it does not depend on whether a checkpoint in
    bfloat16 was loaded as bfloat16 or as fp32. The names are those in the model without adapters.
    """
    total = hashlib.sha256()
    for name, tensor in sorted(_weights(model, has_adapters), key=lambda named: named[0]):
        total.update(f"{name} {tuple(tensor.shape)}\n".encode())
        values = tensor.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).contiguous()
        total.update(memoryview(values.flatten().numpy()).cast("B"))
    return total.hexdigest()


def _weights(model: nn.Module, has_adapters: bool) -> Iterator[tuple[str, Tensor]]:
    """Yields each parameter once, and the numbers of quantized layers."""
    adapted = adapters(model)
    bases = {f"{name}.base": name for name in adapted}
    seen: set[nn.Parameter] = set() if has_adapters else {
        p for part in adapted.values() for p in (part.w_a, part.w_b)}
    for path, module in model.named_modules():
        here = bases.get(path, path)
        for name, p in module.named_parameters(recurse=False):
            if p not in seen:
                seen.add(p)
                yield f"{here}.{name}", p
        if kind_of(module) in QUANTIZED:
            for name, buffer in module.named_buffers(recurse=False):
                yield f"{here}.{name}", buffer

