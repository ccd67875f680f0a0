"""Shows which numbers of a matrix a lane holds, for each instruction of the tensor cores.

Used by the chapter on tensor cores (37).
"""

from matplotlib.figure import Figure

from llama_from_scratch.kernels.emulator.fragments import FRAGMENTS, fragment
from llama_from_scratch.lessons.figures import fragments as drawn
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore


def fragments(*, start: str = "mma A", lane: int = 0) -> Explorer:
    """Returns a widget with an instruction's matrix and a lane to choose.

    start, lane: what is shown first.
    """
    most = max(fragment(name).n_lanes for name in FRAGMENTS) - 1
    return explore(fragments_frame, title="Who holds which number", has_hover=True,
                   controls={"name": list(FRAGMENTS), "lane": (0, most, lane)},
                   limits=lambda name, lane: {"lane": fragment(name).n_lanes - 1},
                   labels={"name": "instruction and matrix", "lane": "lane or thread"},
                   start={"name": start})


def fragments_frame(name: str, lane: int) -> Figure:
    """Draws the matrix with the lane's numbers highlighted."""
    return drawn.owners(name, lane=lane)
