"""Cuts a model into units: the parameters that are gathered, freed and reduced together.

A unit is one block of the model. What is in no block, or in several, belongs to the root unit: the
embedding, the last norm, the output, and a weight that is tied between two of them.

Notebook 42.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.flat import Flat


class Unit:
    """Parameters that come and go together.

    `flats`: a buffer for each dtype, and others for frozen parameters. `modules`: those that read
    the parameters in their forward: the block, or all that own a parameter of the root.
    """

    def __init__(self, flats: Sequence[Flat], *, modules: Sequence[nn.Module]) -> None:
        self.flats, self.modules = tuple(flats), tuple(modules)

    @property
    def is_whole(self) -> bool:
        """Whether the model's parameters have their values."""
        return all(flat.is_whole for flat in self.flats)

    def start_gather(self) -> None:
        """Begins to gather what is not there and has not begun."""
        for flat in self.flats:
            flat.start_gather()

    def gather(self) -> None:
        """Gives the block its weights."""
        self.start_gather()
        for flat in self.flats:
            flat.gather()

    def free(self) -> None:
        """Gives the memory of the whole weights back, unless they are kept."""
        for flat in self.flats:
            flat.free()


def cut(
    model: nn.Module, group: RankGroup, *, replicate: RankGroup | None,
    param_dtype: torch.dtype | None, is_kept: bool, blocks: Iterable[nn.Module] | None = None,
    groups: Mapping[str, RankGroup] | None = None,
) -> list[Unit]:
    """Returns the root unit, then the unit of each block, with the weights of the first rank.

    `blocks`: by default the entries of every ModuleList that is in no other block. The other
    arguments are as in `Sharded` and `Flat`. Parameters on the meta device have no weights yet.
    Raises ValueError for a parameter that holds no floating-point numbers.
    """
    blocks = _outermost_blocks(model) if blocks is None else list(dict.fromkeys(blocks))
    names = {module: name for name, module in model.named_modules()}

    def equal(x: Tensor, group: RankGroup) -> Tensor:
        """Otherwise each rank would contribute parts of another model."""
        x = x.contiguous()
        if replicate is not None:
            replicate.broadcast(x, note="first weights")
        return group.broadcast(x, note="first weights")

    def unit(block: nn.Module | None, named: dict[str, nn.Parameter]) -> Unit:
        name = "root" if block is None else names[block]
        flats = []
        for kind, alike in _by_kind(named, groups or {}).items():
            weights = {n: p.detach() for n, p in alike.items() if not p.is_meta}
            own = (groups or {}).get(next(iter(alike)), group)
            flats.append(Flat(f"{name}{kind}", alike, own, param_dtype=param_dtype,
                              is_kept=is_kept))
            for n, weight in weights.items():
                flats[-1].fill(n, equal(weight, own))
        return Unit(flats, modules=_owners(model, named) if block is None else [block])

    units = [unit(block, named) for block, named in _by_block(model, blocks).items()]
    for buffer in model.buffers():
        if not buffer.is_meta:
            buffer.copy_(equal(buffer, group))
    return units


def gathered(
    flats: Sequence[Flat], pieces: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Yields whole tensors, one buffer after the other, from tensors like the flats' pieces."""
    dtypes: dict[str, torch.dtype] = {}  # also where this rank owns nothing
    largest = max((flat.group for flat in flats), key=lambda group: group.size)
    for theirs in largest.gather_objects({name: x.dtype for name, x in pieces.items()}):
        dtypes |= theirs
    for flat in flats:
        wanted = {name: dtypes[name] for name in flat.shapes if name in dtypes}
        yield from flat.gathered(pieces, wanted).items()


@contextlib.contextmanager
def dropped_on_error(flats: Sequence[Flat]) -> Iterator[None]:
    """A context after whose errors no gradient is left, which the next step would add to its own.
    """
    try:
        yield
    except BaseException:
        for flat in flats:
            flat.drop_grads()
        raise


def tensors_of(output: object) -> list[Tensor]:
    """Returns the tensors in what a module returned."""
    parts = output.values() if isinstance(output, dict) else output
    if isinstance(output, Tensor) or not isinstance(output, (dict, tuple, list)):
        return [output] if isinstance(output, Tensor) else []
    return [x for part in parts for x in tensors_of(part)]


def _owners(model: nn.Module, named: dict[str, nn.Parameter]) -> list[nn.Module]:
    return [module for module in model.modules()
            if not set(named.values()).isdisjoint(module.parameters(recurse=False))]


def _outermost_blocks(model: nn.Module) -> list[nn.Module]:
    found: dict[nn.Module, None] = {}
    for child in model.children():
        found |= dict.fromkeys(
            child if isinstance(child, nn.ModuleList) else _outermost_blocks(child))
    return list(found)


def _by_block(
    model: nn.Module, blocks: list[nn.Module]
) -> dict[nn.Module | None, dict[str, nn.Parameter]]:
    """Returns the parameters by their names, for the root (None) and for each block."""
    homes: dict[nn.Parameter, list[nn.Module]] = {}
    for block in blocks:
        for p in block.parameters():
            homes.setdefault(p, []).append(block)
    found: dict[nn.Module | None, dict[str, nn.Parameter]] = {None: {}}
    found |= {block: {} for block in blocks}
    for name, p in model.named_parameters():
        if not p.is_floating_point():
            raise ValueError(f"the parameters of a sharded model hold floating-point numbers; got "
                             f"{name} of {p.dtype}. Register it as a buffer")
        home = homes.get(p, [])
        found[home[0] if len(home) == 1 else None][name] = p
    return found


def _by_kind(
    named: dict[str, nn.Parameter], groups: Mapping[str, RankGroup]
) -> dict[str, dict[str, nn.Parameter]]:
    """Returns the parameters that can be in one buffer; the key tells kinds apart, if needed."""
    kinds: dict[tuple[torch.dtype, bool, RankGroup | None], dict[str, nn.Parameter]] = {}
    for name, p in named.items():
        kinds.setdefault((p.dtype, p.requires_grad, groups.get(name)), {})[name] = p
    if len(kinds) == 1:
        return {"": named}
    return {f" {str(dtype).removeprefix('torch.')}{'' if is_trained else ' frozen'}"
            f"{'' if own is None else f' {own.name}'}": alike
            for (dtype, is_trained, own), alike in kinds.items()}
