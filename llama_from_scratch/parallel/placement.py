"""Which slice of a logical tensor a rank holds.

A **logical** tensor is a parameter of the plain model, or its gradient, or its average in the
optimizer. A rank may hold all of it or a slice along one axis, and several ranks may hold the same.
Whatever counts or saves logical tensors reads it here: every element counts once.

Notebook 43.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from jaxtyping import Shaped
from torch import Tensor, nn

from llama_from_scratch.checkpoint.sharded.region import Region
from llama_from_scratch.config import record


@record
class Slice:
    """Part number `part` of `n_parts` equal parts along `axis`; with n_parts=1 it is the whole.

    In a group of `n_parts * n_copies` ranks, neighbors hold copies of the same part.
    `is_partial`: whether each copy computes only a part of the gradient, so that the gradients of
    the copies must be added up. Raises ValueError for a part that does not exist.
    """

    axis: int = 0
    part: int = 0
    n_parts: int = 1
    n_copies: int = 1
    is_partial: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.part < self.n_parts or self.n_copies < 1 or self.axis < 0:
            raise ValueError("a slice has an axis from 0, a part from 0 to n_parts - 1, and at "
                             f"least one copy; got axis={self.axis}, part={self.part}, "
                             f"n_parts={self.n_parts}, n_copies={self.n_copies}")

    def of(self, whole: Shaped[Tensor, "*whole"]) -> Shaped[Tensor, "*part"]:
        """Returns this part of a whole tensor, as a view. Raises ValueError if it is not even."""
        if whole.shape[self.axis] % self.n_parts:
            raise ValueError(f"parts of a tensor are equal; axis {self.axis} of "
                             f"{tuple(whole.shape)} has {whole.shape[self.axis]} elements for "
                             f"{self.n_parts} parts. Use a number of parts that divides it")
        length = whole.shape[self.axis] // self.n_parts
        return whole.narrow(self.axis, self.part * length, length)

    def whole_shape(self, part: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of the whole, from the shape of a part."""
        return tuple(n * self.n_parts if axis == self.axis else n for axis, n in enumerate(part))


def region_of(
    local: tuple[int, ...], slices: Sequence[Slice], *, span: tuple[int, int] | None = None
) -> Region:
    """Returns which elements of a whole tensor a rank holds.

    `local`: the shape of the rank's parameter. `slices`: how it was cut, the first cut first.
    `span`: the first element that the rank owns of the parameter, in one row, and how many.
    """
    whole = local
    for cut in reversed(slices):
        whole = cut.whole_shape(whole)
    region = Region.whole(whole)
    for cut in slices:
        region = region.part(axis=cut.axis, part=cut.part, n_parts=cut.n_parts)
    return region if span is None else region.span(*span)


def each_once(
    weights: Iterable[tuple[str, Tensor]], names: Collection[str]
) -> Iterator[tuple[str, Tensor]]:
    """Yields the weights, which must have these `names`, each once.

    Raises ValueError for an unknown name or a second weight when it comes, and at the end for names
    without one.
    """
    missing = set(names)
    for name, weight in weights:
        if name not in missing:
            raise ValueError(f"the weights must fit this model, each once; got {name!r} "
                             f"{'twice' if name in names else 'as well'}")
        missing.remove(name)
        yield name, weight
    if missing:
        raise ValueError(f"every parameter needs a weight; {', '.join(sorted(missing)[:4])} got "
                         "none")


@runtime_checkable
class DataStrategy(Protocol):
    """How ranks that read different rows share one model: `DataParallel`, or `Sharded`.

    `params`: what the optimizer changes, by the names of the model's parameters. These are the
    model's own tensors, or one-dimensional pieces of them that this rank owns. `frozen`: the same
    of the parameters that are not trained.
    """

    params: dict[str, nn.Parameter]
    frozen: dict[str, nn.Parameter]

    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[None]:
        """A context around forward and backward of one micro-batch of a step."""

    def finish(self) -> None:
        """After the last backward: every `params[name].grad` is the sum over all ranks."""

    def after_step(self) -> None:
        """After the optimizer: the model computes with the new weights."""

    def after_fill(self) -> None:
        """After `params` and `frozen` were changed in place: the model computes with them."""

    def place(self, name: str) -> tuple[tuple[int, ...], tuple[int, int]]:
        """Returns the shape of the model's parameter, and which span of it this rank owns.

        The span is the first element of the parameter, in one row, and how many.
        """

    def fill(self, name: str, weight: Tensor) -> None:
        """Copies a whole parameter in; every rank is given the same one."""

    def piece(self, name: str, whole: Tensor) -> Tensor:
        """Returns what `params[name]` stands for of a tensor as large as the model's parameter.

        For pieces it is one-dimensional, and it has no elements if this rank owns none.
        """

    def whole(self, pieces: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Yields each tensor as large as the model's parameter, from tensors like `params`.

        A collective. The pieces are weights, gradients, or averages of the optimizer.
        """
