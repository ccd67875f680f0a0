"""A drawing of what the first warp of each rung of a kernel reads at once.

Notebooks 31, 32 and 36.
"""

from collections.abc import Mapping

from matplotlib.figure import Figure

from llama_from_scratch.kernels.emulator.rules import SECTOR_BYTES
from llama_from_scratch.kernels.emulator.trace import VERBS, Trace
from llama_from_scratch.lessons.figures.flow import Drawing
from llama_from_scratch.lessons.figures.look import BLUE, TINTS

_PITCH, _HEIGHT = 0.21, 0.42


def first_access(traces: Mapping[str, Trace], array: str) -> Figure:
    """For each traced launch, the sectors that its first warp reads of an array with one access.

    A box is a sector of 32 bytes, blue from below as far as it was asked for. `traces`: name of the
    rung -> trace. Raises ValueError if a launch does not read the array.

    Example: `rungs.first_access({"1 a thread a row": traces[0], "4 vectors": traces[1]}, "x")`
    """
    drawing = Drawing(f"What 32 lanes read of {array} at once, rung by rung")
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
        (f"One access of \"{worst[0]}\" moves {SECTOR_BYTES * worst[2]:,} bytes for "
         f"{worst[1]:,} that it asks for. " if n_wasted else "No access moves a byte in vain. ")
        + f"One of \"{most[0]}\" asks for the most, {most[1]:,} bytes with one instruction.")


def access(trace: Trace, array: str) -> tuple[dict[int, tuple[int, int]], dict[int, int]]:
    """The first warp access that reads an array: lanes, and bytes asked for by sector.

    Lanes: lane -> (first element, elements).
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
    """Which elements the first lanes read, in words."""
    told = []
    for lane in sorted(lanes)[:2]:
        first, n = lanes[lane]
        last = f"…{first + n - 1}" if n > 1 else ""
        told.append(f"lane {lane} [{first}{last}]")
    return ", ".join(told) + ", …"
