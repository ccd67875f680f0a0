"""Drawings of the CUDA machine: which thread holds which number, and the memories of a GPU.

Notebook 30.
"""

from matplotlib.figure import Figure

from llama_from_scratch.config import record
from llama_from_scratch.kernels.emulator.machine import MAX_SHARED_BYTES
from llama_from_scratch.kernels.emulator.rules import BANK_BYTES, N_BANKS, READ, WARP
from llama_from_scratch.kernels.emulator.trace import Trace
from llama_from_scratch.lessons.figures.flow import Drawing, Node
from llama_from_scratch.lessons.figures.look import TINTS

_LANE, _MAX_WARPS = 0.195, 10


def threads(found: Trace, array: str) -> Figure:
    """Draws the grid of a traced launch: its blocks, warps and lanes, and what they read.

    A lane that reads nothing from the array is white. Raises ValueError for a launch of more than
    10 warps, or an array that the launch did not use.

    Example: `machine.threads(trace(add, "add", [x, y, z, 150], grid=3, block=64), "x")`
    """
    held = first_reads(found, array)
    n_blocks, n_threads = _product(found.grid), _product(found.block)
    n_warps = -(-n_threads // WARP)
    if n_blocks * n_warps > _MAX_WARPS:
        raise ValueError(f"this drawing has room for {_MAX_WARPS} warps; got {n_blocks} blocks of "
                         f"{n_warps}. Trace a smaller launch")
    drawing = Drawing(f"grid = {n_blocks}, block = {n_threads}: "
                      f"{n_blocks * n_threads} threads, one program")
    left, y, n_idle = 1.35, 0.72, 0
    for lane in (0, 8, 16, 24, 31):
        drawing.note(f"{lane}", (left + _LANE * lane, 0.0), align="center")
    drawing.note("lane", (0.75, 0.0))
    for block in range(n_blocks):
        members: list[Node] = []
        for warp in range(n_warps):
            mine = range(WARP * warp, min(WARP * (warp + 1), n_threads))
            drawing.note(f"warp {warp}", (0.6, y))
            for thread in mine:
                is_busy = (block, thread) in held
                n_idle += not is_busy
                members.append(drawing.cell(
                    "", (left + _LANE * (thread - mine[0]), y), width=_LANE, height=0.24,
                    color=TINTS[0] if is_busy else "white"))
            busy = [held[block, thread] for thread in mine if (block, thread) in held]
            words = f"{array}[{busy[0]}] … [{busy[-1]}]" if busy else "nothing to do"
            drawing.note(words, (left + _LANE * 32 + 0.05, y))
            y += 0.32
        # The frame also encloses the notes at both sides.
        edges = [Node(x=x, y=members[0].y, width=0.0, height=0.0, lines=("",), kind="cell")
                 for x in (0.6, left + _LANE * 32 + 1.2)]
        drawing.frame(f"block {block}", [*members, *edges])
        y += 0.5
    drawing.key({"a thread that reads": TINTS[0], "a thread without a number": "white"},
                (0.45, y - 0.2))
    return drawing.figure(
        f"Neighboring lanes hold neighboring numbers of {array}. Only whole blocks can be "
        f"launched, so {n_idle} of {n_blocks * n_threads} threads have no number.")


def first_reads(found: Trace, array: str) -> dict[tuple[int, int], int]:
    """Returns (block, thread) -> the first element of an array that this thread reads."""
    known = [number for number, each in enumerate(found.known) if each.name == array]
    if not known:
        raise ValueError("the array must be one of the launch's, "
                         f"{', '.join(each.name for each in found.known)}; got {array}")
    (number,) = known
    about, held = found.known[number], {}
    for row in found.table[(found.table["array"] == number) & (found.table["kind"] == READ)]:
        element = (int(row["address"]) - about.begin) // about.item_bytes
        held.setdefault((int(row["block"]), int(row["thread"])), element)
    return held


def _product(sizes: tuple[int, ...]) -> int:
    n = 1
    for size in sizes:
        n *= size
    return n


@record
class MemoryLevel:
    """A kind of memory: which threads can use it, its size, and its speed.

    `n_bytes`: the size that the threads in `seen_by` share. `bytes_per_s`: for the whole GPU; None
    if the manufacturer publishes no number.
    """

    name: str
    seen_by: str
    n_bytes: int
    bytes_per_s: float | None


N_PROCESSORS, CLOCK_HZ = 132, 1.98e9
H200 = (
    MemoryLevel(name="registers", seen_by="one thread", n_bytes=255 * 4, bytes_per_s=None),
    MemoryLevel(name="shared memory", seen_by="the threads of a block", n_bytes=MAX_SHARED_BYTES,
                bytes_per_s=N_PROCESSORS * N_BANKS * BANK_BYTES * CLOCK_HZ),
    MemoryLevel(name="L2 cache", seen_by="all blocks", n_bytes=50 * 2**20, bytes_per_s=None),
    MemoryLevel(name="HBM", seen_by="all blocks", n_bytes=141 * 10**9, bytes_per_s=4.8e12),
)
"""Sources: NVIDIA H200 data sheet (141 GB, 4.8 TB/s); NVIDIA H100 architecture white paper, of the
same chip (132 processors, 1.98 GHz, 50 MB of L2); CUDA C++ programming guide, compute capability
9.0 (255 registers for a thread, 227 KB of shared memory for a block, 32 banks of 4 bytes)."""


def memory() -> Figure:
    """Draws the memories of an H200: which threads can use each, its size and its speed.

    Example: `machine.memory()`
    """
    drawing = Drawing("Memory of a GPU (H200): memory near a thread is small")
    for words, x in (("used by", 4.15), ("size", 6.15), ("speed", 7.35)):
        drawing.note(words, (x, 0.0))
    colors, above = (TINTS[2], TINTS[6], TINTS[1], TINTS[0]), None
    for row, (level, color) in enumerate(zip(H200, colors, strict=True)):
        y = 0.42 + 0.68 * row
        made = drawing.cell(level.name, (2.0, y), width=1.5 + 0.75 * row, height=0.42, color=color)
        if above:
            drawing.arrow((1.9, above.bottom[1]), (1.9, made.top[1]))
            drawing.arrow((2.1, made.top[1]), (2.1, above.bottom[1]))
        above = made
        speed = ("not published" if level.bytes_per_s is None
                 else f"{level.bytes_per_s / 1e12:.1f} TB/s")
        for words, x in ((level.seen_by, 4.15), (_amount(level.n_bytes), 6.15), (speed, 7.35)):
            drawing.note(words, (x, y))
    near, far = H200[1], H200[3]
    return drawing.figure(
        f"Every number comes from HBM and returns there. All shared memory together is "
        f"{near.bytes_per_s / far.bytes_per_s:.0f} times as fast, but a block has only "
        f"{_amount(near.n_bytes)} of it. So a kernel reads each number once and keeps it near.")


def _amount(n_bytes: int) -> str:
    """Returns an amount in the units of the sources: powers of 1000 for GB, of 1024 for MB and KB.
    """
    if n_bytes >= 10**9:
        return f"{n_bytes / 1e9:.0f} GB"
    return f"{n_bytes / 2**20:.0f} MB" if n_bytes >= 2**20 else f"{n_bytes / 2**10:.0f} KB"
