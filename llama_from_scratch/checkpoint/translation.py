"""Our parameters <-> the tensors of a format, by the table of names.

"Ours" are the parameters of our model, "theirs" the tensors of a format. A piece is a part of one
of our parameters and a part of one of their tensors that have the same numbers, possibly in another
order. Parameters are translated one at a time. If a parameter is one piece in the same order, it is
a view of the file. Otherwise its pieces are copied from the file into a new tensor.

E experts, F feed-forward width, H heads, D the other axes. Notebook 18.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from jaxtyping import Shaped
from torch import Tensor

from llama_from_scratch.checkpoint.names import TABLE, Format, Row, Table, Theirs, groups
from llama_from_scratch.config import LlamaConfig, record
from llama_from_scratch.model.costs import param_shapes


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
    are in halves there; None means that rows keep their order.
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

    @property
    def keeps_order(self) -> bool:
        """Whether the numbers have the same order in both."""
        return self.n_heads is None and not self.is_transposed

    @property
    def is_all(self) -> bool:
        """Whether their tensor equals our parameter."""
        return self.keeps_order and self.along is None and self.expert is None

    def in_ours(self, whole: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Returns the piece as a view of our parameter, with the same axes as `in_theirs`."""
        part = whole if self.expert is None else whole[self.expert]
        return part if self.n_heads is None else _pairs(part, self.n_heads).transpose(1, 2)

    def in_theirs(self, whole: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Returns the piece as a view of their tensor, with its axes in our order."""
        part = whole if self.along is None else whole.narrow(self.along, self.start, self.length)
        part = part.transpose(-1, -2) if self.is_transposed else part
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


def translation(format: Format, config: LlamaConfig, *, table: Table = TABLE) -> Translation:
    """Returns how a format stores the parameters of a config's model."""
    heads = {"n_heads": config.n_heads, "n_kv_heads": config.n_kv_heads}
    return translation_of(
        param_shapes(config), format, heads=heads, n_layers=config.n_layers, table=table)


def translation_of(
    params: Mapping[str, tuple[int, ...]], format: Format, *, heads: Mapping[str, int],
    n_layers: int, table: Table = TABLE
) -> Translation:
    """Returns the same for parameters of these shapes.

    `heads`: field of the config -> number of heads. Raises ValueError if the table has no row for a
    parameter, or the format no name.
    """
    found = groups(params, n_layers, table=table)
    theirs: dict[str, tuple[int, ...]] = {}
    pieces: list[TensorPiece] = []
    for layer, rows in found:
        prefix = "" if layer is None else format.of_layer.format(i=layer)
        for ours, row in rows.items():
            if format not in row.theirs:
                raise ValueError(f"a checkpoint needs a tensor for each parameter; {format.name}'s "
                                 f"layout has none for {ours}. Use another format")
            pieces += _pieces(row, ours, params[ours], row.theirs[format], prefix=prefix,
                              heads=heads, theirs=theirs)
    order = [ours for _, rows in found for ours in rows]
    return Translation(
        format=format, groups=tuple(tuple(rows) for _, rows in found),
        ours={ours: params[ours] for ours in order}, theirs=theirs, pieces=tuple(pieces),
        ignored=frozenset(name.format(i=i) for name in format.ignored for i in range(n_layers)))


def _pieces(
    row: Row, ours: str, shape: tuple[int, ...], how: Theirs, *, prefix: str,
    heads: Mapping[str, int], theirs: dict[str, tuple[int, ...]],
) -> Iterator[TensorPiece]:
    """Yields the pieces of one parameter, and adds their shapes to `theirs`: name -> shape."""
    for expert in range(shape[0]) if how.is_split else (None,):
        name = prefix + how.name.format(e=expert)
        part = list(shape if expert is None else shape[1:])
        if how.is_transposed:
            part[-2:] = part[-1], part[-2]
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
    if len(pieces) == 1 and first.keeps_order:
        return first.in_ours(weight)
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
