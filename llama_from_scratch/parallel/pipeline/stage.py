"""A rank of a pipeline keeps its own layers of a model; the names of what it keeps do not change.

A model is cut into pieces of neighboring layers: the first piece also has the embedding, and the
last one the norm and the head. Rank r of P keeps the pieces r, P + r, ... Where a module was, a
placeholder without parameters stays, so layer 5 is still `layers.5`. So checkpoints, optimizers and
other strategies work as they do without a pipeline.

    piece             0            1            2              3
    layers   embedding, 0, 1     2, 3, 4      5, 6, 7     8, 9, norm, head

A tied head is the embedding's matrix. Then the last rank keeps that, too, under its one name.

Notebook 44.
"""

from collections.abc import Collection, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llama_from_scratch.config import LlamaConfig, record
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.pipeline.layers import layers_of

TIED = "tok_embeddings.weight"
"""The parameter that is embedding and head in one, in a model with a tied head."""


class Absent(nn.Module):
    """Stands for a module that another rank of the pipeline has. It cannot be called."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, *args: object, **kwargs: object) -> None:
        raise RuntimeError(f"{self.name} is on another rank of the pipeline, so this rank cannot "
                           "compute the whole model. Train with `train` and `parts_on`, or compute "
                           "a loss with sharded.loss")

    def extra_repr(self) -> str:
        return self.name


@record
class ModelPiece:
    """Neighboring layers of a model. `number`: from 0 to `n_pieces` - 1."""

    number: int
    n_pieces: int
    layers: slice

    @property
    def numbers(self) -> range:
        """The numbers of its layers."""
        return range(self.layers.start, self.layers.stop)

    @property
    def is_first(self) -> bool:
        """Whether it has the embedding, and nothing is received before its forward pass."""
        return self.number == 0

    @property
    def is_last(self) -> bool:
        """Whether it has the head, and its forward pass ends with the loss."""
        return self.number == self.n_pieces - 1

    def stream(
        self, model: Llama, x: Tensor, *, positions: Int[Tensor, "B T"],
        documents: Int[Tensor, "B T"],
    ) -> Float[Tensor, "B T D"]:
        """Returns the stream behind the piece's layers. `x`: the stream before, or ids if first."""
        if self.is_first:
            x = model.embed(x)
        inputs = model.prepare(x, positions=positions, documents=documents)
        return model.run(x, inputs, layers=self.layers)


def names_on_both_ends(config: LlamaConfig, ends: RankGroup) -> frozenset[str]:
    """Returns which parameters the first and the last rank of a pipeline both have, if any.

    Their gradients are added up between the two, and they count once. `ends`: see `mesh.Axes`.
    """
    return frozenset({TIED} if config.is_tied and ends.size > 1 else ())


def pieces_of(counts: Sequence[int]) -> tuple[ModelPiece, ...]:
    """Returns the pieces that have `counts` layers, in their order."""
    ends = [sum(counts[: i + 1]) for i in range(len(counts))]
    return tuple(ModelPiece(number=i, n_pieces=len(counts), layers=slice(end - n, end))
                 for i, (n, end) in enumerate(zip(counts, ends, strict=True)))


def cut(model: Llama, pp: RankGroup, *, n_chunks: int) -> tuple[ModelPiece, ...]:
    """Keeps of `model`, in place, what this rank of a pipeline has (`layers_of`), and returns it.

    Raises ValueError for too few layers, and as `keep` does.
    """
    layers = layers_of(model.config.n_layers, pp.size * n_chunks)
    return keep(model, pieces_of([len(each) for each in layers]), rank=pp.rank, n_ranks=pp.size)


def keep(
    model: Llama, pieces: Sequence[ModelPiece], *, rank: int, n_ranks: int
) -> tuple[ModelPiece, ...]:
    """Removes from `model`, in place, what other ranks have; returns this rank's pieces.

    `pieces`: all of them. The model may be on the meta device. Raises ValueError for another kind
    of model, and if the pieces do not have all layers once.
    """
    if type(model) is not Llama:
        raise ValueError("a pipeline is cut from a Llama, which reads only text; got a "
                         f"{type(model).__name__}. Choose pp=1 for it")
    if [i for piece in pieces for i in piece.numbers] != list(range(model.config.n_layers)):
        raise ValueError(f"the pieces of a pipeline have each of the {model.config.n_layers} "
                         "layers once, in their order; got pieces with the layers "
                         + ", ".join(f"{p.layers.start} to {p.layers.stop - 1}" for p in pieces))
    own = tuple(piece for piece in pieces if piece.number % n_ranks == rank)
    is_kept = {i for piece in own for i in piece.numbers}
    for i in range(model.config.n_layers):
        if i not in is_kept:
            model.layers[i] = Absent(f"layers.{i}")
    has_head = any(piece.is_last for piece in own)
    if not (any(piece.is_first for piece in own) or (has_head and model.config.is_tied)):
        model.tok_embeddings = Absent("tok_embeddings")
    if not has_head:
        model.norm, model.output = Absent("norm"), Absent("output")
    return own


def whole_of_stages(
    pp: RankGroup, own: Iterator[tuple[str, Tensor]], *, skips: Collection[str] = ()
) -> Iterator[tuple[str, Tensor]]:
    """Yields the whole tensors of every rank of a pipeline, by name, on all of its ranks.

    A collective. `own`: what this rank's layers have. `skips`: what the first rank has yielded
    already, so that the others do not yield it again.
    """
    if pp.size == 1:
        yield from own
        return
    for rank in range(pp.size):
        while True:
            name, whole = next(own, (None, None)) if rank == pp.rank else (None, None)
            about = None if whole is None else (name, whole.shape, whole.dtype)
            found = pp.gather_objects(about)[rank]
            if found is None:
                break
            name, shape, dtype = found
            whole = whole.contiguous() if rank == pp.rank else torch.empty(
                shape, dtype=dtype, device=pp.device)
            pp.broadcast(whole, source=rank, note=name)
            if rank == 0 or name not in skips:
                yield name, whole
