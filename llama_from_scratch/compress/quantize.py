"""The verb: a plain model whose linear layers are on a grid, by a scheme that is a row of data.

Nothing is trained. The model that is given does not change; the new one has its own packed weights
and shares the rest.

Notebook 60.
"""

import copy
from collections.abc import Iterator

import torch
from torch import nn

from llama_from_scratch.compress.rounding import Rounded, round_to
from llama_from_scratch.config import nearest, record
from llama_from_scratch.model.grid import WeightGrid
from llama_from_scratch.model.grid_linear import GridEmbedding, GridLinear, GridWeight
from llama_from_scratch.model.transformer import Llama

_HEAD, _TABLE = "output", "tok_embeddings"


@record
class Scheme:
    """What is rounded, and how.

    `blocks`: the grid of the linear layers of all blocks. `ends`: that of the embedding and of the
    head, None to leave both. `is_clipped`: see `round_to`. `input_bits`: see `GridLinear`, for all
    layers that are rounded.
    """

    blocks: WeightGrid
    ends: WeightGrid | None = None
    is_clipped: bool = False
    input_bits: int | None = None

    def __post_init__(self) -> None:
        if self.input_bits is not None and not 2 <= self.input_bits <= 8:
            raise ValueError(f"inputs are rounded to 2 to 8 bits, or not: None; got "
                             f"{self.input_bits}")


_ROW8 = WeightGrid(bits=8, group=None, kind="symmetric")
SCHEMES = {
    "int8": Scheme(blocks=_ROW8),
    "int4-row": Scheme(blocks=WeightGrid(bits=4, group=None)),
    "int4": Scheme(blocks=WeightGrid(bits=4)),
    "int4-symmetric": Scheme(blocks=WeightGrid(bits=4, kind="symmetric")),
    "int4-minimum": Scheme(blocks=WeightGrid(bits=4, kind="minimum")),
    "int4-clipped": Scheme(blocks=WeightGrid(bits=4), is_clipped=True),
    "nf4": Scheme(blocks=WeightGrid(bits=4, group=64, kind="normal")),
    "int3": Scheme(blocks=WeightGrid(bits=3)),
    "int3-clipped": Scheme(blocks=WeightGrid(bits=3), is_clipped=True),
    "int2": Scheme(blocks=WeightGrid(bits=2)),
    "int2-clipped": Scheme(blocks=WeightGrid(bits=2), is_clipped=True),
    "llama-3.2": Scheme(blocks=WeightGrid(bits=4, kind="symmetric"), ends=_ROW8, input_bits=8),
}
"""Every scheme with a name. "llama-3.2" is the one of the models for phones: Meta's blog post
"Introducing quantized Llama models", 2024."""


def quantize(model: Llama, scheme: str | Scheme = "int4") -> Llama:
    """Returns a copy of a plain model with packed weights. `scheme`: a name of SCHEMES, or one.

    Embeddings that are tied to the head stay so: both read the same packed numbers. Norms are never
    rounded. The new model computes on the same device and in the same dtype, and cannot be trained.
    Raises ValueError for an unknown scheme, a model that is quantized, adapted, sharded or fused
    already, and for weights that are not finite, with their name.
    """
    chosen = _scheme(scheme)
    found = dict(_linear_layers(model))
    _refuse_other_models(model, found)
    rounded: dict[str, Rounded] = {}
    for name, layer in found.items():
        grid = chosen.ends if name == _HEAD else chosen.blocks
        if grid is not None:
            rounded[name] = _rounded(name, layer.weight, grid, chosen)
    is_tied = model.output.weight is model.tok_embeddings.weight
    if chosen.ends is not None and not is_tied:
        rounded[_TABLE] = _rounded(_TABLE, model.tok_embeddings.weight, chosen.ends, chosen)
    kept = {id(p): p for p in model.parameters()}  # shared: a copy would double the memory
    new = copy.deepcopy(model, memo=kept)
    packed = {name: GridWeight(each.numbers, each.scales, each.zeros, grid=each.grid)
              for name, each in rounded.items()}
    for name, weight in packed.items():
        if name != _TABLE:
            old = found[name]
            new.set_submodule(name, GridLinear(weight, bias=old.bias,
                                               input_bits=chosen.input_bits))
    if chosen.ends is not None:
        new.tok_embeddings = GridEmbedding(packed[_HEAD if is_tied else _TABLE], dtype=model.dtype)
    return new.requires_grad_(False)


def bits_per_weight(model: Llama) -> float:
    """Returns the mean bits of a weight in the layers that are on a grid, with scales and zeros.

    Raises ValueError for a model without such layers.
    """
    found = {id(each): each for each in model.modules() if isinstance(each, GridWeight)}
    if not found:
        raise ValueError("this needs a model with weights on a grid; got one without. "
                         "`compress.quantize` makes one")
    n_bits = 8 * sum(each.n_bytes for each in found.values())
    return n_bits / sum(each.shape[0] * each.shape[1] for each in found.values())


def n_bytes(model: nn.Module) -> int:
    """Returns the bytes of all parameters and stored buffers of a model, each counted once."""
    kept = {id(each): each for each in model.parameters()}
    for module in model.modules():
        if isinstance(module, (GridWeight, GridLinear)):
            kept |= {id(each): each for each in module.buffers(recurse=False)}
    return sum(each.numel() * each.element_size() for each in kept.values())


def _scheme(scheme: str | Scheme) -> Scheme:
    if isinstance(scheme, Scheme):
        return scheme
    if scheme not in SCHEMES:
        raise ValueError(f"no scheme is called {scheme!r:.60}; {nearest(scheme, SCHEMES)}")
    return SCHEMES[scheme]


def _linear_layers(model: Llama) -> Iterator[tuple[str, nn.Linear]]:
    for name, module in model.named_modules():
        if type(module) is nn.Linear:
            yield name, module


def _refuse_other_models(model: Llama, found: dict[str, nn.Linear]) -> None:
    other = [name for name, module in model.named_modules()
             if hasattr(module, "in_features") and type(module) is not nn.Linear]
    if other or _HEAD not in found:
        what = f"{other[0]} is a {type(model.get_submodule(other[0])).__name__}" if other else (
            "it has no plain head")
        raise ValueError("quantize begins with a plain model, all of whose layers are nn.Linear; "
                         f"in this one {what}. Quantize before adapters and fused kernels are put "
                         "in, and only once")
    if sharded := [name for name, p in model.named_parameters() if type(p) is not nn.Parameter]:
        raise ValueError("quantize begins with a whole model on one device; "
                         f"{sharded[0]} is a {type(model.get_parameter(sharded[0])).__name__}")


def _rounded(name: str, weight: torch.Tensor, grid: WeightGrid, scheme: Scheme) -> Rounded:
    try:
        return round_to(weight, grid, is_clipped=scheme.is_clipped)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
