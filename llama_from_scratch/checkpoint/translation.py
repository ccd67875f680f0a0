"""Our parameters <-> the tensors of a format, by the table of names.

"Ours" are the parameters of our model, "theirs" the tensors of a format. A piece is a part of one
of our parameters and a part of one of their tensors that have the same numbers, possibly in another
order. Parameters are translated one at a time. If a parameter is one piece in the same order, it is
a view of the file. Otherwise its pieces are copied from the file into a new tensor.

E experts, F feed-forward width, H heads, D the other axes. Notebook 18.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import torch
from jaxtyping import Shaped
from torch import Tensor

from llama_from_scratch.checkpoint import expert_names, vision_names
from llama_from_scratch.checkpoint.expert_layers import has_experts
from llama_from_scratch.checkpoint.names import (
    GGUF,
    TABLE,
    Format,
    Row,
    Section,
    Table,
    Theirs,
    groups,
)
from llama_from_scratch.config import FusionLlamaConfig, LlamaConfig, VisionLlamaConfig, record
from llama_from_scratch.model.costs import param_shapes
from llama_from_scratch.vision.encoder import N_COLORS
from llama_from_scratch.vision.tables import Grid, compacted, expanded


def to_halves(weight: Shaped[Tensor, "rows *D"], n_heads: int) -> Shaped[Tensor, "rows *D"]:
    """Returns our rows of wq or wk in Hugging Face's order: of each head 0, 2, 4, ..., 1, 3, ..."""
    return _pairs(weight, n_heads).transpose(1, 2).flatten(0, 2)


def to_pairs(weight: Shaped[Tensor, "rows *D"], n_heads: int) -> Shaped[Tensor, "rows *D"]:
    """Returns Hugging Face's rows of wq or wk in our order: of each head 0, K/2, 1, K/2 + 1, ..."""
    return _halves(weight, n_heads).transpose(1, 2).flatten(0, 2)


def _pairs(weight: Tensor, n_heads: int) -> Shaped[Tensor, "H R two *D"]:
    """Returns our rows by head, pair and place in the pair; RoPE turns rows 2r and 2r + 1."""
    return weight.unflatten(0, (n_heads, -1, 2))


def _halves(weight: Tensor, n_heads: int) -> Shaped[Tensor, "H two R *D"]:
    """Returns their rows by head, half and pair; RoPE turns rows r and r + K/2 together."""
    return weight.unflatten(0, (n_heads, 2, -1))


@record
class TensorPiece:
    """The numbers that one of our parameters and one of their tensors have in common.

    `expert`: the entry of our first axis; None means all of it. `along`, `start`, `length`: the
    place in their tensor; `along` None means all of it. `n_heads`: the number of heads whose rows
    are in halves there; None means that rows keep their order. `is_convolution`: their second axis
    is cut into three. `grid`: of a table of places that they store once; these numbers are not a
    view but computed. `n_in_first`: our first two axes are one there, and the first has this many
    entries.
    """

    row: Row
    ours: str
    theirs: str
    expert: int | None
    along: int | None
    start: int
    length: int
    n_heads: int | None
    is_transposed: bool
    is_convolution: bool = False
    grid: Grid | None = None
    n_in_first: int | None = None

    @property
    def keeps_order(self) -> bool:
        """Whether the numbers have the same order in both."""
        return self.n_heads is None and not self.is_transposed

    @property
    def is_all(self) -> bool:
        """Whether their tensor equals our parameter."""
        return (self.keeps_order and self.along is None and self.expert is None
                and not self.is_convolution and self.n_in_first is None)

    def in_ours(self, whole: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Returns the piece as a view of our parameter, with the same axes as `in_theirs`."""
        part = whole if self.expert is None else whole[self.expert]
        return part if self.n_heads is None else _pairs(part, self.n_heads).transpose(1, 2)

    def in_theirs(self, whole: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Returns the piece as a view of their tensor, with its axes in our order."""
        part = whole if self.along is None else whole.narrow(self.along, self.start, self.length)
        part = part.transpose(-1, -2) if self.is_transposed else part
        part = part.flatten(1) if self.is_convolution else part
        if self.n_in_first is not None:
            part = part.unflatten(0, (self.n_in_first, -1))
        return part if self.n_heads is None else _halves(part, self.n_heads)


@record
class Translation:
    """All pieces of a model in one format.

    `groups`: our names in the order of the table; a group is one parameter of the model, or all of
    a layer. `ours`, `theirs`: name -> shape. `ignored`: names of tensors that files of this format
    may also hold.
    """

    format: Format
    groups: tuple[tuple[str, ...], ...]
    ours: Mapping[str, tuple[int, ...]]
    theirs: Mapping[str, tuple[int, ...]]
    pieces: tuple[TensorPiece, ...]
    ignored: frozenset[str]

    @functools.cached_property
    def by_ours(self) -> Mapping[str, list[TensorPiece]]:
        """The pieces of each of our parameters."""
        return _by(lambda piece: piece.ours, self.pieces)

    @functools.cached_property
    def by_theirs(self) -> Mapping[str, list[TensorPiece]]:
        """The pieces of each of their tensors, in their order there."""
        return _by(lambda piece: piece.theirs, self.pieces)

    def names_for(self, ours: Iterable[str]) -> list[str]:
        """Returns the names of their tensors that hold these parameters, each once."""
        return list(dict.fromkeys(piece.theirs for name in ours for piece in self.by_ours[name]))


def translation(
    format: Format, config: LlamaConfig, *, table: Table = TABLE,
    params: Mapping[str, tuple[int, ...]] | None = None,
) -> Translation:
    """Returns how a format stores the parameters of a config's model.

    `table`: of a text model whose layers are alike. The parts of a model that sees are in
    `vision_names`, and Llama 4's names in `expert_names`. `params`: name -> shape, by default the
    whole parameters; a shard has smaller ones. Raises ValueError if the format has no name for one.
    """
    heads = {"n_heads": config.n_heads, "n_kv_heads": config.n_kv_heads}
    params = param_shapes(config) if params is None else params
    if isinstance(config, VisionLlamaConfig):
        return _of_sections(format, params, vision_names.sections(config), heads=heads,
                            grids=_grids(format, config))
    if isinstance(config, FusionLlamaConfig) or (has_experts(config) and format != GGUF):
        return _of_sections(format, params, expert_names.sections(config), heads=heads)
    return translation_of(params, format, heads=heads, n_layers=config.n_layers, table=table)


def translation_of(
    params: Mapping[str, tuple[int, ...]], format: Format, *, heads: Mapping[str, int],
    n_layers: int, table: Table = TABLE
) -> Translation:
    """Returns the same for parameters of these shapes.

    `heads`: field of the config -> number of heads. Raises ValueError if the table has no row for a
    parameter, or the format no name.
    """
    found = [("" if layer is None else format.of_layer.format(i=layer), rows)
             for layer, rows in groups(params, n_layers, table=table)]
    ignored = frozenset(name.format(i=i) for name in format.ignored for i in range(n_layers))
    return _translated(found, format, params, heads=heads, ignored=ignored)


def _of_sections(
    format: Format, params: Mapping[str, tuple[int, ...]], sections: Iterable[Section], *,
    heads: Mapping[str, int], grids: Mapping[str, Grid] = MappingProxyType({}),
) -> Translation:
    """Returns the translation of parameters whose rows are in sections."""
    found = []
    for section in sections:
        if format not in section.theirs:
            raise ValueError(f"{format.name} has no names for a model that sees images. Write "
                             "Hugging Face's or Meta's layout, or our own")
        rows = {section.ours + row.ours: row for row in section.rows}
        rows = {ours: row for ours, row in rows.items() if ours in params}
        found.append((section.theirs[format], rows))
    if unknown := sorted(set(params).difference(*(rows for _, rows in found))):
        raise AssertionError(f"no section of the names has {unknown[:4]}")
    return _translated(found, format, params, heads=heads, ignored=frozenset(), grids=grids)


def _grids(format: Format, config: VisionLlamaConfig) -> dict[str, Grid]:
    """Returns our name -> the grid in which a format stores it, for tables of places."""
    params, vision = param_shapes(config), config.vision
    rows = {section.ours + row.ours: row for section in vision_names.sections(config)
            for row in section.rows}
    return {ours: Grid(aspect_ratios=vision.aspect_ratios, width=vision.dim,
                       max_tiles=vision.max_tiles,
                       n_entries=params[ours][1] // (vision.max_tiles * vision.dim))
            for ours, row in rows.items()
            if ours in params and format in row.theirs and row.theirs[format].is_grid}


def _translated(
    found: Sequence[tuple[str, Mapping[str, Row]]], format: Format,
    params: Mapping[str, tuple[int, ...]], *, heads: Mapping[str, int], ignored: frozenset[str],
    grids: Mapping[str, Grid] = MappingProxyType({}),
) -> Translation:
    """Returns the translation of groups of rows; each comes with the beginning of its names."""
    theirs: dict[str, tuple[int, ...]] = {}
    pieces: list[TensorPiece] = []
    for prefix, rows in found:
        for ours, row in rows.items():
            if format not in row.theirs:
                raise ValueError(f"a checkpoint needs a tensor for each parameter; {format.name}'s "
                                 f"layout has none for {ours}. Use another format")
            pieces += _pieces(row, ours, params[ours], row.theirs[format], prefix=prefix,
                              heads=heads, theirs=theirs, grid=grids.get(ours))
    order = [ours for _, rows in found for ours in rows]
    return Translation(
        format=format, groups=tuple(tuple(rows) for _, rows in found),
        ours={ours: params[ours] for ours in order}, theirs=theirs, pieces=tuple(pieces),
        ignored=ignored)


def _pieces(
    row: Row, ours: str, shape: tuple[int, ...], how: Theirs, *, prefix: str,
    heads: Mapping[str, int], theirs: dict[str, tuple[int, ...]], grid: Grid | None = None,
) -> Iterator[TensorPiece]:
    """Yields the pieces of one parameter, and adds their shapes to `theirs`: name -> shape."""
    for expert in range(shape[0]) if how.is_split else (None,):
        name = prefix + how.name.format(e=expert)
        part = list(shape if expert is None else shape[1:])
        if how.is_transposed:
            part[-2:] = part[-1], part[-2]
        n_in_first = part[0] if how.is_flat else None
        if how.is_flat:
            part[:2] = [part[0] * part[1]]
        if how.is_convolution:
            edge = math.isqrt(part[1] // N_COLORS)
            part[1:] = N_COLORS, edge, edge
        if grid is not None:
            part = list(grid.shape)
        length = start = 0
        if how.along is None:
            if name in theirs:
                raise AssertionError(f"the table makes {name} of several parameters without an "
                                     "axis `along`")
        else:
            length = part[how.along]
            start = theirs[name][how.along] if name in theirs else 0
            part[how.along] += start
        theirs[name] = tuple(part)
        yield TensorPiece(row=row, ours=ours, theirs=name, expert=expert, along=how.along,
                          start=start, length=length, is_transposed=how.is_transposed,
                          is_convolution=how.is_convolution, grid=grid, n_in_first=n_in_first,
                          n_heads=heads[row.heads] if how.has_halves else None)


def to_ours(
    how: Translation, read: Callable[..., Tensor], *, dtypes: Mapping[str, torch.dtype],
    dtype: torch.dtype | None = None, names: Iterable[str] | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """Yields (name, parameter) for our parameters, each read only then, in `dtype` or the file's.

    `read(theirs, dtype=, is_kept=)`: reads one of their tensors; dtype None means the file's. With
    `is_kept` the result stays in use and may be a view of a mapped file; otherwise it is copied and
    dropped at once. `dtypes`: of their tensors in the file. `names`: the parameters to yield, by
    default all in the order of the table.
    """
    for ours in how.ours if names is None else names:
        pieces = how.by_ours[ours]
        first, is_one = pieces[0], len(pieces) == 1
        stored = {dtypes[piece.theirs] for piece in pieces}
        if dtype is None and len(stored) > 1:
            raise ValueError(f"the tensors that make up {ours} must have one dtype; they have "
                             f"{', '.join(sorted(map(str, stored)))}. Choose one, "
                             "such as dtype=torch.float32 (on the command line --dtype float32)")
        if first.grid is not None:
            table = read(first.theirs, dtype=dtype, is_kept=False)
            yield ours, expanded(table, first.grid)
            continue
        if is_one and first.is_all:
            yield ours, read(first.theirs, dtype=dtype, is_kept=True)
            continue
        wanted = dtype or dtypes[first.theirs]
        if is_one and first.keeps_order and stored == {wanted}:
            part = first.in_theirs(read(first.theirs, dtype=None, is_kept=True))
            if part.is_contiguous():
                yield ours, part
                continue
        own = torch.empty(how.ours[ours], dtype=wanted)
        for piece in pieces:
            piece.in_ours(own).copy_(piece.in_theirs(read(piece.theirs, dtype=None, is_kept=False)))
        yield ours, own


def to_theirs(how: Translation, weights: Mapping[str, Tensor], name: str) -> Tensor:
    """Returns one of their tensors, made from our parameters.

    It is a view if it is a part of one parameter in the same order, or else a new tensor.
    """
    pieces = how.by_theirs[name]
    first = pieces[0]
    weight = weights[first.ours].detach()
    if first.grid is not None:
        return compacted(weight, first.grid)
    if len(pieces) == 1 and first.keeps_order:
        part = first.in_ours(weight)
        is_cut = first.is_convolution or first.n_in_first is not None
        return part.reshape(how.theirs[name]) if is_cut else part
    whole = torch.empty(how.theirs[name], dtype=weight.dtype, device=weight.device)
    for piece in pieces:
        piece.in_theirs(whole).copy_(piece.in_ours(weights[piece.ours].detach()))
    return whole


def _by(
    key: Callable[[TensorPiece], str], pieces: Iterable[TensorPiece]
) -> dict[str, list[TensorPiece]]:
    found: dict[str, list[TensorPiece]] = {}
    for piece in pieces:
        found.setdefault(key(piece), []).append(piece)
    return found
