"""Records a kernel's run: which thread touched what memory in which line, races, and traffic.

`trace(program, "my_kernel", [x, y], grid=4, block=128)` runs the unmodified source under the
emulator with every memory access recorded (see trace.h) and returns a `Trace`. Its numbers are
counts, not estimates; time is not modeled. The launch gets copies of its tensors with empty space
around them, so an access past an end is found at its first element.

Needs pyelftools. Notebook 30.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.kernels.emulator import machine, rules
from llama_from_scratch.kernels.emulator.rules import READ, WRITE
from llama_from_scratch.kernels.emulator.tape import (
    GUARD_BYTES,
    NO_ARRAY,
    Array,
    Line,
    Symbols,
    Tape,
    dynamic_declaration,
    guarded,
)
from llama_from_scratch.kernels.machinery.source import Argument, Program, pack

MAX_ACCESSES = 2_000_000
VERBS = ("reads", "writes", "changes by an atomic")
EVENTS = ("copy begins", "copy ends", "multiplies", "tile ordered", "tile arrives", "arrives",
          "phase ends", "waits", "goes on", "product begins", "product ends")

# --- what a trace contains ------------------------------------------------------------------------


@record
class Access:
    """One access of one thread, in words and numbers."""

    thread: tuple[int, ...]
    block: tuple[int, ...]
    kind: str
    element: str
    line: Line

    def __str__(self) -> str:
        return self.told(self.element)

    def told(self, element: str) -> str:
        block = f" of block {_index(self.block)}" if any(self.block) else ""
        return (f"thread {_index(self.thread)}{block} {self.kind} {element} in {self.line} "
                f"(`{self.line.text}`)")


def _index(position: tuple[int, ...]) -> str:
    return str(position[0]) if len(position) == 1 else str(position)


@record
class Happening:
    """What a thread did with something that runs at the same time: one of EVENTS.

    `number`: of the copy, the tile, the product or the warp that multiplies, or, for mbarriers, the
    byte of dynamic shared memory where it is.
    """

    event: str
    number: int
    thread: int
    block: int
    line: Line


@record
class Race:
    """Two accesses to one element that nothing orders, at least one of them a write.

    `first` is a write. `n_places`: how many elements the two lines race for. `cure`: the barrier
    that would order the two, if they are in one block.
    """

    array: str
    element: str
    first: Access
    second: Access
    n_places: int
    is_in_one_warp: bool

    @property
    def cure(self) -> str:
        return "__syncwarp()" if self.is_in_one_warp else "__syncthreads()"

    def __str__(self) -> str:
        n_more = self.n_places - 1
        more = f" The same happens with {n_more} more of its elements." if n_more else ""
        if self.first.block != self.second.block:
            blocks = f"{_index(self.first.block)} and {_index(self.second.block)}"
            cause = f"They are in blocks {blocks}, and nothing orders two blocks."
        else:
            where = ", lanes of one warp" if self.is_in_one_warp else ""
            cause = f"No {self.cure} orders the two{where}."
        return f"Race: {self.first}, and {self.second.told('it')}. {cause}{more}"


@record
class OutOfBounds:
    """The access that ended the launch, and the array it left."""

    access: Access
    array: str
    n_elements: int

    def __str__(self) -> str:
        if not self.array:
            return f"Out of bounds: {self.access}, far from every tensor and shared array."
        return f"Out of bounds: {self.access}, but {self.array} has {self.n_elements:,} elements."


@record
class Moment:
    """What a block did between two barriers, and its shared memory at the second barrier.

    `arrays`: each shared array by name. Elements that were never written are NaN, or -1 in integers
    (all bits set). `written`, `read`: how many times each element was accessed in between. `lines`:
    the lines that accessed memory. `barrier`: None at the end of the block.
    """

    number: int
    barrier: Line | None
    arrays: dict[str, np.ndarray]
    written: dict[str, np.ndarray]
    read: dict[str, np.ndarray]
    lines: tuple[Line, ...]


@record
class Traffic:
    """What one line moves to or from one array, over the whole launch.

    For tensors, `moved` counts sectors of 32 bytes, and `ideal` is the fewest sectors that hold the
    bytes asked for. For shared arrays, `moved` counts passes over the 32 banks, and `ideal` the
    passes without a conflict. `asked_bytes`: the bytes asked for, summed over threads.
    """

    line: Line
    kind: str
    array: str
    is_shared: bool
    asked_bytes: int
    warp_accesses: int
    moved: int
    ideal: int

    @property
    def per_access(self) -> float:
        """Sectors, or passes, per warp access."""
        return self.moved / self.warp_accesses

    @property
    def efficiency(self) -> float:
        """ideal / moved, which is 1 if every byte that moves was asked for."""
        return self.ideal / self.moved

    def __str__(self) -> str:
        unit = "passes" if self.is_shared else "sectors"
        return (f"{self.line}: {self.kind} {self.array}, {self.warp_accesses:,} × "
                f"{self.per_access:.3g} {unit}, ideal {self.ideal / self.warp_accesses:.3g} "
                f"({self.efficiency:.0%})")


@record
class Trace:
    """A recorded launch. `table`: rows of `rules.ACCESS`. `stray`: the access that ended it."""

    program: Program
    entry: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    table: np.ndarray
    syncs: np.ndarray
    known: tuple[Array, ...]
    places: dict[tuple[int, int], Line]
    pictures: tuple[tuple[int, int, Line | None, dict[str, np.ndarray]], ...]
    stray: np.ndarray | None
    happenings: tuple[Happening, ...] = ()

    @cached_property
    def races(self) -> tuple[Race, ...]:
        """Every two lines that race, each pair with one example.

        An empty tuple is a proof for this launch, not for every launch. Raises ValueError for a
        kernel with mbarriers, whose order is not judged here.
        """
        if any(each.event == "phase ends" for each in self.happenings):
            raise ValueError("races are judged by __syncthreads and __syncwarp; this kernel also "
                             "orders its threads by mbarriers. Compare its results in the orders "
                             "forward, reverse and random instead")
        lines = {line: number for number, line in enumerate(dict.fromkeys(self.places.values()))}
        by_line = self.table.copy()  # for the reader, the instructions of a line are one
        by_line["place"] = [lines[self._line(row)] for row in self.table]
        by_line["line"] = 0
        shared = {number for number, array in enumerate(self.known) if array.is_shared}
        return tuple(self._race(clash)
                     for clash in rules.clashes(by_line, self.syncs, shared=shared))

    @cached_property
    def out_of_bounds(self) -> OutOfBounds | None:
        """The access that ended the launch, outside every tensor and shared array; or None."""
        if self.stray is None:
            return None
        address = int(self.stray["address"])
        before = self.table["array"][(self.table["place"] == self.stray["place"])
                                     & (self.table["line"] == self.stray["line"])]
        # The array that this instruction accessed until then, or otherwise the nearest.
        near = [self.known[number] for number in np.unique(before)] or self.known
        array = min(near, key=lambda array: _distance(array, address))
        if _distance(array, address) >= GUARD_BYTES:
            return OutOfBounds(access=self._access(self.stray, f"address {address:#x}"), array="",
                               n_elements=0)
        access = self._access(self.stray, array.element(address))
        return OutOfBounds(access=access, array=array.name, n_elements=array.n_elements)

    @cached_property
    def traffic(self) -> tuple[Traffic, ...]:
        """What each line moves, in the order of the source."""
        rows, found = self.table, []
        for number, array in enumerate(self.known):
            mine = rows[rows["array"] == number]
            if len(mine):
                found += self._traffic(mine, array)
        return tuple(sorted(found, key=lambda t: (*_position(t.line), t.array, t.kind)))

    def _traffic(self, rows: np.ndarray, array: Array) -> list[Traffic]:
        warp_access = rules.warp_accesses(rows)
        moved, ideal = (rules.passes if array.is_shared else rules.sectors)(rows, warp_access)
        n = len(moved)
        first = np.full(n, -1)
        first[warp_access[::-1]] = np.arange(len(rows))[::-1]
        asked = np.bincount(warp_access, weights=rows["bytes"], minlength=n)
        sums: dict[tuple, np.ndarray] = {}
        for k, row in enumerate(rows[first]):
            key = (self._line(row), VERBS[row["kind"]])
            one = np.array([asked[k], 1, moved[k], ideal[k]], np.int64)
            sums[key] = sums.get(key, np.zeros(4, np.int64)) + one
        return [Traffic(line=line, kind=kind, array=array.name, is_shared=array.is_shared,
                        asked_bytes=int(total[0]), warp_accesses=int(total[1]),
                        moved=int(total[2]), ideal=int(total[3]))
                for (line, kind), total in sums.items()]

    @cached_property
    def moved_bytes(self) -> dict[str, tuple[int, int]]:
        """(read, written) for each tensor, in bytes: 32 for each sector of each warp access.

        An atomic does both. This is what warps request from the memory system. A GPU's caches
        deliver part of it when a sector is requested again.
        """
        totals = {array.name: [0, 0] for array in self.known if not array.is_shared}
        for traffic in self.traffic:
            if not traffic.is_shared:
                for side, kinds in enumerate(((VERBS[0], VERBS[2]), VERBS[1:])):
                    if traffic.kind in kinds:
                        totals[traffic.array][side] += rules.SECTOR_BYTES * traffic.moved
        return {name: (read, written) for name, (read, written) in totals.items()}

    @cached_property
    def steps(self) -> tuple[Moment, ...]:
        """The watched block from barrier to barrier."""
        return tuple(self._moment(*picture) for picture in self.pictures)

    def _moment(
        self, block: int, number: int, barrier: Line | None, arrays: dict[str, np.ndarray]
    ) -> Moment:
        rows = self.table[(self.table["block"] == block) & (self.table["interval"] == number)]
        counts: list[dict[str, np.ndarray]] = []
        for is_read in (False, True):
            side = rows[rows["kind"] != READ] if not is_read else rows[rows["kind"] != WRITE]
            counts.append({array.name: _count(side[side["array"] == k], array)
                           for k, array in enumerate(self.known)
                           if array.name in arrays and array.is_shared})
        lines = {self._line(row)
                 for row in rows[np.unique(rows[["place", "line"]], return_index=True)[1]]}
        return Moment(number=number, barrier=barrier, arrays=arrays, written=counts[0],
                      read=counts[1], lines=tuple(sorted(lines, key=_position)))

    def at(self, text: str, array: str, *, kind: str | None = None) -> Traffic:
        """Returns the traffic between the line that contains `text` and this array.

        kind: one of VERBS, needed if the line does several things with the array. Raises
        ValueError, with all rows, unless exactly one row fits.
        """
        found = [row for row in self.traffic
                 if text in row.line.text and row.array == array and kind in (None, row.kind)]
        if len(found) != 1:
            there = "\n".join(f"  {row.line.number}: {row.kind} {row.array}: {row.line.text}"
                              for row in self.traffic)
            raise ValueError(f"one line that contains {text!r} must touch {array}; {len(found)} "
                             f"do. The lines are\n{there}")
        return found[0]

    def warp_access(self, traffic: Traffic, *, number: int = 0) -> dict[int, tuple[int, int]]:
        """Returns {lane: (first element, elements)} of one warp access that `traffic` counts.

        number: which one, counted by block and warp. Raises ValueError if there is no such access.
        """
        array = next(array for array in self.known if array.name == traffic.array)
        mine = self.table[self.table["array"] == self.known.index(array)]
        mine = mine[[VERBS[row["kind"]] == traffic.kind and self._line(row) == traffic.line
                     for row in mine]]
        if not 0 <= number < traffic.warp_accesses:
            raise ValueError(
                f"there are {traffic.warp_accesses} warp accesses, from 0; got {number}")
        rows = mine[rules.warp_accesses(mine) == number]
        size = array.item_bytes
        return {int(row["thread"]) % rules.WARP: (
            (int(row["address"]) - array.begin) // size, -(-int(row["bytes"]) // size))
                for row in rows}

    def _line(self, row: np.void) -> Line:
        return self.places[int(row["place"]), int(row["line"])]

    def _access(self, row: np.void, element: str) -> Access:
        return Access(thread=_unravel(int(row["thread"]), self.block),
                      block=_unravel(int(row["block"]), self.grid), kind=VERBS[row["kind"]],
                      element=element, line=self._line(row))

    def _race(self, clash: rules.Clash) -> Race:
        rows = sorted((self.table[clash.first], self.table[clash.second]),
                      key=lambda row: row["kind"] == READ)
        array = self.known[rows[0]["array"]]
        element = array.element(clash.address)
        first, second = (self._access(row, element) for row in rows)
        warps = [row["thread"] // rules.WARP for row in rows]
        return Race(array=array.name, element=element, first=first, second=second,
                    n_places=clash.n_places, is_in_one_warp=bool(warps[0] == warps[1]))

    def __str__(self) -> str:
        found = [str(self.out_of_bounds)] if self.out_of_bounds else []
        found += map(str, self.races)
        return "\n".join([*(found or ["No race, nothing out of bounds."]), *map(str, self.traffic)])


def _position(line: Line) -> tuple[bool, str, int]:
    return not line.file.endswith(".cu"), line.file, line.number


def _distance(array: Array, address: int) -> int:
    return max(array.begin - address, address - (array.begin + array.n_bytes) + 1, 0)


def _count(rows: np.ndarray, array: Array) -> np.ndarray:
    first = (rows["address"].astype(np.int64) - array.begin) // array.item_bytes
    last = (rows["address"].astype(np.int64) + rows["bytes"] - 1 - array.begin) // array.item_bytes
    counts = np.zeros(array.n_elements, np.int64)
    for low, high in zip(first, last, strict=True):
        counts[low:high + 1] += 1
    return counts.reshape(array.shape)


def _unravel(number: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Returns coordinates, x first as in CUDA, and as many as the launch has sizes."""
    return tuple(int(k) for k in np.unravel_index(number, sizes[::-1])[::-1])


# --- recording ------------------------------------------------------------------------------------


def trace(
    program: Program, entry: str, args: Sequence[Argument], *,
    grid: int | tuple[int, ...], block: int | tuple[int, ...], shared_bytes: int = 0,
    order: str = "forward", seed: int = 0, watch: int = 0, max_accesses: int = MAX_ACCESSES,
) -> Trace:
    """Runs one launch on the CPU, changes tensors as a GPU would, and returns all memory accesses.

    watch: the number of the block whose shared memory `steps` shows. Raises KernelFault for a
    launch that a GPU would not survive either (a barrier that some threads never reach), and
    ValueError without pyelftools. An access out of bounds ends the launch and is in
    `out_of_bounds`.
    """
    pack(program, entry, args)  # refuses what a launch would refuse, before tensors are copied
    grid, block = (size if isinstance(size, tuple) else (size,) for size in (grid, block))
    emulated = machine.load(program, kind="traced")
    symbols = Symbols.read(emulated.path, program, entry)
    names = [parameter.name for parameter in program.entry(entry).parameters]
    copies, tensors = guarded(names, args)
    tape = Tape(max_accesses=max_accesses, watch=watch)
    with tape.on(emulated.library, symbols, tensors):
        try:
            emulated.launch(entry, copies, grid=grid, block=block, shared_bytes=shared_bytes,
                            order=order, seed=seed)
        except machine.KernelFault:
            if tape.stray is None:
                raise
    for original, copy in zip(args, copies, strict=True):
        if isinstance(original, Tensor):
            original.detach().copy_(copy)
    table, stray = tape.accesses, tape.stray
    known = (*tensors, *tape.shared(symbols),
             *tape.dynamic(dynamic_declaration(program), shared_bytes))
    table["array"] = NO_ARRAY
    for number, array in enumerate(known):
        table["array"][(table["address"] >= array.begin)
                       & (table["address"] < array.begin + array.n_bytes)] = number
    rows = table if stray is None else np.append(table, stray)
    touched = [array for number, array in enumerate(known)
               if array.is_shared and (table["array"] == number).any()]
    pictures = tape.pictures(touched)
    texts = {f"{program.source.name}.cu": program.source.text, **program.source.headers}
    places = {(int(row["place"]), int(row["line"])) for row in np.unique(rows[["place", "line"]])}
    told = tape.happenings
    told_at = [(int(row["file"]), int(row["line"])) for row in told]
    lines = tape.lines(emulated.path, texts,
                       places | {barrier for barrier, _ in pictures if barrier[1]} | {*told_at})
    return Trace(program=program, entry=entry, grid=grid, block=block, table=table,
                 syncs=tape.syncs, known=known, places=lines,
                 pictures=tuple((watch, number, lines.get(at), values)
                                for number, (at, values) in enumerate(pictures)),
                 stray=None if stray is None else stray[0],
                 happenings=tuple(
                     Happening(event=EVENTS[row["event"]], number=int(row["number"]),
                               thread=int(row["thread"]), block=int(row["block"]), line=lines[at])
                     for row, at in zip(told, told_at, strict=True)))
