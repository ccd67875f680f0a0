"""Which elements of a tensor a piece holds, and how two pieces of the same tensor overlap.

A rank holds a box of a tensor, for example some of its rows or some of its columns. Of this box it
may hold only a span, when the box is laid out as one row of numbers (`parallel.flat`):

    a matrix of 4 x 6         its box: columns 2 to 5        the span of 7 elements from element 3
    . . . . . .               . . 0 1 2 3                    . . . . . x
    . . . . . .               . . 4 5 6 7                    . . x x x x
    . . . . . .               . . 8 9 .                      . . x x . .

A span is a few boxes, one after the other: the rest of a row, whole rows, and the begin of a row.
So every overlap is an overlap of boxes, and that is an overlap of intervals along each axis. No
list of elements is ever made.

Notebook 47.
"""

import math
from collections.abc import Iterator, Sequence

from jaxtyping import Shaped
from torch import Tensor

from llama_from_scratch.config import record


@record
class TensorBox:
    """The elements from `starts[i]` to `starts[i] + sizes[i] - 1` along each axis i."""

    starts: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def n(self) -> int:
        """The number of elements."""
        return math.prod(self.sizes)

    def overlap(self, other: "TensorBox") -> "TensorBox | None":
        """Returns the elements that are in both boxes, None if there are none."""
        starts = tuple(map(max, self.starts, other.starts))
        ends = [min(a + n, b + m) for a, n, b, m in zip(
            self.starts, self.sizes, other.starts, other.sizes, strict=True)]
        sizes = tuple(end - start for start, end in zip(starts, ends, strict=True))
        return TensorBox(starts=starts, sizes=sizes) if all(size > 0 for size in sizes) else None

    def within(self, x: Shaped[Tensor, "*outer"], outer: "TensorBox") -> Shaped[Tensor, "*inner"]:
        """Returns the elements of this box as a view of `x`, which holds the box `outer`."""
        for axis, (start, size) in enumerate(zip(self.starts, self.sizes, strict=True)):
            x = x.narrow(axis, start - outer.starts[axis], size)
        return x


@record
class Region:
    """What a piece holds of a tensor of `shape`: a span of a box.

    `starts`, `sizes`: the box. `first`, `n`: the span, as its first element and how many, in the
    box laid out as one row. Raises ValueError for what is not inside the tensor.
    """

    shape: tuple[int, ...]
    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    first: int
    n: int

    def __post_init__(self) -> None:
        is_inside = len(self.shape) == len(self.starts) == len(self.sizes) and all(
            0 <= start <= start + size <= whole for start, size, whole in zip(
                self.starts, self.sizes, self.shape, strict=True))
        if not is_inside or not 0 <= self.first <= self.first + self.n <= math.prod(self.sizes):
            raise ValueError("a piece is a span of a box inside of its tensor; got starts "
                             f"{self.starts}, sizes {self.sizes} and the span {self.first}, "
                             f"{self.n} for the shape {self.shape}")

    @classmethod
    def whole(cls, shape: Sequence[int]) -> "Region":
        """Returns the region that holds all of a tensor."""
        return cls(shape=tuple(shape), starts=(0,) * len(shape), sizes=tuple(shape), first=0,
                   n=math.prod(shape))

    @property
    def box(self) -> TensorBox:
        """The box of which this region is a span."""
        return TensorBox(starts=self.starts, sizes=self.sizes)

    def span(self, first: int, n: int) -> "Region":
        """Returns another span of the same box."""
        return Region(shape=self.shape, starts=self.starts, sizes=self.sizes, first=first, n=n)

    def part(self, *, axis: int, part: int, n_parts: int) -> "Region":
        """Returns one of `n_parts` equal parts of the box along an axis, whole."""
        length = self.sizes[axis] // n_parts
        starts, sizes = list(self.starts), list(self.sizes)
        starts[axis], sizes[axis] = starts[axis] + part * length, length
        return Region(shape=self.shape, starts=tuple(starts), sizes=tuple(sizes), first=0,
                      n=math.prod(sizes))

    def boxes(self) -> Iterator[TensorBox]:
        """Yields boxes that hold the span, in the order of its elements.

        Each is contiguous in the span, so a piece is these boxes one after the other.
        """
        for starts, sizes in _boxes(self.sizes, self.first, self.n):
            yield TensorBox(starts=tuple(map(int.__add__, self.starts, starts)), sizes=sizes)


def copy(
    target: Shaped[Tensor, " n"], wanted: Region, source: Shaped[Tensor, " m"], given: Region
) -> int:
    """Copies into `target`, the elements of `wanted`, all that `source` has of them.

    `source`: the elements of `given`. Returns how many elements were copied.
    """
    n_copied = at = 0
    for box in wanted.boxes():
        row = target[at : at + box.n].view(box.sizes)
        begin = 0
        for other in given.boxes():
            if both := box.overlap(other):
                piece = source[begin : begin + other.n].view(other.sizes)
                both.within(row, box).copy_(both.within(piece, other))
                n_copied += both.n
            begin += other.n
        at += box.n
    return n_copied


def do_overlap(a: Region, b: Region) -> bool:
    """Returns whether two regions of one tensor share an element."""
    return any(box.overlap(other) for box in a.boxes() for other in b.boxes())


def _boxes(
    sizes: tuple[int, ...], first: int, n: int
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Yields (starts, sizes) of boxes that hold n elements from `first` on, in order."""
    if n == 0:
        return
    if len(sizes) < 2:
        yield ((first,), (n,)) if sizes else ((), ())
        return
    per_row = math.prod(sizes[1:])
    row, rest = divmod(first, per_row)
    if rest:
        begun = min(n, per_row - rest)
        for starts, lengths in _boxes(sizes[1:], rest, begun):
            yield (row, *starts), (1, *lengths)
        row, n = row + 1, n - begun
    n_rows, left = divmod(n, per_row)
    if n_rows:
        yield (row, *(0,) * (len(sizes) - 1)), (n_rows, *sizes[1:])
    for starts, lengths in _boxes(sizes[1:], 0, left):
        yield (row + n_rows, *starts), (1, *lengths)
