"""Drawings of the rungs of a kernel: which thread reads which numbers, and which bytes move.

Notebooks 31, 32 and 36.
"""

from collections.abc import Mapping

from matplotlib.figure import Figure

from llama_from_scratch.kernels.emulator.rules import READ, SECTOR_BYTES
from llama_from_scratch.kernels.emulator.trace import VERBS, Trace
from llama_from_scratch.lessons.figures.flow import Drawing
from llama_from_scratch.lessons.figures.look import BLUE, TINTS

_PITCH, _HEIGHT = 0.21, 0.42
_N_SHOWN, _STEP = 64, 0.104


def first_access(traces: Mapping[str, Trace], array: str) -> Figure:
    """Draws, for each traced launch, the sectors of an array that its first warp reads at once.

    A box is a sector of 32 bytes; its blue part shows how many of them are used. `traces`: name of
    the rung -> trace. Raises ValueError if a launch does not read the array.

    Example: `rungs.first_access({"1 a thread per row": traces[0], "4 vectors": traces[1]}, "x")`
    """
    drawing = Drawing(f"What 32 lanes read from {array} at once, rung by rung")
    y, found = 0.0, []
    for name, trace in traces.items():
        lanes, sectors = access(trace, array)
        n_asked = sum(sectors.values())
        found.append((name.strip(), n_asked, len(sectors)))
        drawing.note(name, (0.05, y))
        for i, (_, n_bytes) in enumerate(sorted(sectors.items())):
            x = 2.05 + _PITCH * i
            asked = _HEIGHT * n_bytes / SECTOR_BYTES
            for height, color, middle in (
                    (asked, BLUE, y + (_HEIGHT - asked) / 2),
                    (_HEIGHT - asked, TINTS[1], y - asked / 2)):
                if height:
                    drawing.cell("", (x, middle), width=_PITCH - 0.03, height=height, color=color,
                                 has_edge=False)
        drawing.note(f"{_told(lanes, array)}: {n_asked:,} bytes asked for, "
                     f"{SECTOR_BYTES * len(sectors):,} moved", (1.95, y + 0.38))
        y += 0.92
    drawing.key({"asked for": BLUE, "moved and not used by this access": TINTS[1]},
                (1.95, y - 0.1))
    worst = max(found, key=lambda each: SECTOR_BYTES * each[2] / each[1])
    most = max(found, key=lambda each: each[1])
    n_wasted = SECTOR_BYTES * worst[2] - worst[1]
    return drawing.figure(
        (f"One access of \"{worst[0]}\" asks for {worst[1]:,} bytes and moves "
         f"{SECTOR_BYTES * worst[2]:,}. " if n_wasted
         else "Every access uses all bytes that it moves. ")
        + f"An access of \"{most[0]}\" asks for the most, {most[1]:,} bytes in one instruction.")


def access(trace: Trace, array: str) -> tuple[dict[int, tuple[int, int]], dict[int, int]]:
    """Returns the lanes and sectors of the first warp access that reads an array.

    Lanes: lane -> (first element, number of elements). Sectors: sector -> bytes asked for.
    """
    rows = [row for row in trace.traffic
            if row.array == array and row.kind == VERBS[0] and not row.is_shared]
    if not rows:
        read = sorted({row.array for row in trace.traffic
                       if row.kind == VERBS[0] and not row.is_shared})
        raise ValueError(f"the launch must read the array; {trace.entry} reads {', '.join(read)}; "
                         f"got {array}")
    lanes = trace.warp_access(rows[0], number=0)
    about = next(each for each in trace.known if each.name == array)
    asked = {byte for first, n in lanes.values()
             for byte in range(about.begin + first * about.item_bytes,
                               about.begin + (first + n) * about.item_bytes)}
    sectors: dict[int, int] = {}
    for byte in asked:
        sectors[byte // SECTOR_BYTES] = sectors.get(byte // SECTOR_BYTES, 0) + 1
    return lanes, sectors


def _told(lanes: Mapping[int, tuple[int, int]], array: str) -> str:
    """Returns words for the elements that the first lanes read."""
    told = []
    for lane in sorted(lanes)[:2]:
        first, n = lanes[lane]
        last = f"…{first + n - 1}" if n > 1 else ""
        told.append(f"lane {lane} [{first}{last}]")
    return ", ".join(told) + ", …"


def owners(traces: Mapping[str, Trace], array: str) -> Figure:
    """Draws, for each traced launch, which thread reads each of the first 64 numbers of an array.

    The line below each strip says what thread 0 of block 0 reads in the whole launch. `traces`:
    name of the rung -> trace. Raises ValueError if a launch does not read the array.

    Example: `rungs.owners({"1 a thread per row": traces[0], "4 vectors": traces[1]}, "x")`
    """
    drawing = Drawing(f"Which thread reads which number of {array}")
    drawing.note(f"the first {_N_SHOWN} numbers; each box belongs to one thread", (1.95, 0.0))
    y, widest = 0.38, []
    for name, trace in traces.items():
        drawing.note(name, (0.05, y))
        owner = first_owners(trace, array)
        begin = 0
        for i in range(1, _N_SHOWN + 1):
            if i < _N_SHOWN and owner.get(i) == owner.get(begin):
                continue
            width = _STEP * (i - begin)
            _, thread = owner.get(begin, (0, -1))
            drawing.cell(f"{thread}" if width > 0.3 and thread >= 0 else "",
                         (1.95 + _STEP * (begin + i) / 2, y), width=width, height=0.3,
                         color="white" if thread < 0 else TINTS[thread % 4])
            begin = i
        reads = reads_of(trace, array, block=0, thread=0)
        widest.append((len(reads), name.strip()))
        drawing.note(f"thread 0 reads {_ranges(reads)}", (1.95, y + 0.31))
        y += 0.78
    return drawing.figure(
        f"Thread 0 reads {max(widest)[0]:,} different numbers in \"{max(widest)[1]}\", and "
        f"{min(widest)[0]:,} in \"{min(widest)[1]}\". Neighboring numbers should belong to "
        "neighboring threads of a warp.")


def first_owners(trace: Trace, array: str) -> dict[int, tuple[int, int]]:
    """Returns the (block, thread) that first reads each of the first numbers of an array."""
    found: dict[int, tuple[int, int]] = {}
    for first, last, block, thread in _reads(trace, array):
        for element in range(first, min(last, _N_SHOWN)):
            found.setdefault(element, (block, thread))
    return found


def reads_of(trace: Trace, array: str, *, block: int, thread: int) -> dict[int, int]:
    """Returns how often one thread reads each number of an array, in the order of first reads."""
    found: dict[int, int] = {}
    for first, last, *who in _reads(trace, array):
        if who == [block, thread]:
            for element in range(first, last):
                found[element] = found.get(element, 0) + 1
    return found


def _reads(trace: Trace, array: str) -> list[tuple[int, int, int, int]]:
    """Returns (first element, one past the last, block, thread) of each read of an array."""
    numbers = [i for i, each in enumerate(trace.known) if each.name == array]
    rows = trace.table[(trace.table["array"] == (numbers or [-1])[0])
                       & (trace.table["kind"] == READ)]
    if not len(rows):
        raise ValueError(f"the launch must read the array; {trace.entry} does not read {array}")
    about = trace.known[numbers[0]]
    first = (rows["address"].astype("i8") - about.begin) // about.item_bytes
    last = first + rows["bytes"] // about.item_bytes
    return list(zip(first.tolist(), last.tolist(), rows["block"].tolist(),
                    rows["thread"].tolist(), strict=True))


def _ranges(reads: Mapping[int, int]) -> str:
    """Returns words for the elements, as at most three ranges, and how often each is read."""
    ranges: list[list[int]] = []
    for element in sorted(reads):
        if ranges and element == ranges[-1][1] + 1:
            ranges[-1][1] = element
        else:
            ranges.append([element, element])
    told = [f"[{a}]" if a == b else f"[{a}…{b}]" for a, b in ranges[:3]]
    n_more = len(ranges) - 3
    rest = f" and {n_more} more range{'s' * (n_more > 1)}" if n_more > 0 else ""
    times = {1: "once", 2: "twice"}.get(n := max(reads.values(), default=0), f"{n} times")
    return f"{', '.join(told)}{rest}, {times}" if told else "none"
