"""Draws the ranks of a mesh: who is in a group with whom, and how much each group sends.

Notebook 47.
"""

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.flow import MAX_WIDTH, Drawing, Node
from llama_from_scratch.lessons.figures.look import TINTS
from llama_from_scratch.lessons.figures.shards import size
from llama_from_scratch.parallel.mesh import Mesh

COLORS = {"tp": TINTS[0], "cp": TINTS[1], "pp": TINTS[2], "dp": TINTS[4]}
"""The color of each axis, in the order of the mesh."""
CHOSEN = TINTS[6]
MAX_SIZE = 4
_CELL, _GAP, _ROW, _FRAME_GAP = 0.62, 0.2, 0.46, 0.65


def ranks(mesh: Mesh, *, chosen: int = 0) -> Figure:
    """Draws all ranks of a mesh of tp, cp, pp and dp, and colors the groups of one of them.

    Neighbors share matrices (tp). Next to them are the ranks with other tokens (cp), below them
    those with other layers (pp), and a frame is a whole model (dp). Raises ValueError for a mesh
    that does not fit on a page.

    Example: `mesh.ranks(Mesh(tp=2, cp=2, pp=2, dp=2))`
    """
    here = mesh.coordinates(chosen)
    n_columns = mesh.tp * mesh.cp
    if mesh.replicate > 1 or max(mesh.pp, mesh.dp) > MAX_SIZE or n_columns > 2 * MAX_SIZE:
        raise ValueError(f"this drawing has room for pp and dp up to {MAX_SIZE}, for tp x cp up to "
                         f"{2 * MAX_SIZE}, and for no replicate; got {mesh}. Draw a smaller mesh")
    drawing = Drawing(f"The groups of rank {chosen}: {mesh}")
    wide = mesh.tp * _CELL + _GAP
    width, height = mesh.cp * wide + _FRAME_GAP, mesh.pp * _ROW + 0.6
    per_line = max(1, int((MAX_WIDTH - 1.2) // width))
    for copy in range(mesh.dp):
        left, top = 0.95 + copy % per_line * width, 0.55 + copy // per_line * height
        nodes: list[Node] = []
        for rank in range(mesh.size):
            place = mesh.coordinates(rank)
            if place["dp"] != copy:
                continue
            x = left + place["cp"] * wide + (place["tp"] + 0.5) * _CELL
            y = top + (place["pp"] + 0.5) * _ROW
            nodes.append(drawing.cell(f"{rank}", (x, y), width=_CELL - 0.06, height=0.36,
                                      color=_color(place, here)))
        if copy % per_line == 0:
            for stage in range(mesh.pp):
                drawing.note(f"pp {stage}", (0.05, top + (stage + 0.5) * _ROW))
        drawing.frame(f"dp {copy}", nodes)
    rows = -(-mesh.dp // per_line)
    drawing.key({f"rank {chosen}": CHOSEN} | {f"same {axis} group": color for axis, color in
                                              COLORS.items() if getattr(mesh, axis) > 1},
                (0.1, 0.45 + rows * height))
    found = {axis: next(line for line in mesh.lines(axis) if chosen in line) for axis in COLORS
             if getattr(mesh, axis) > 1}
    told = "; ".join(f"{axis} {', '.join(map(str, line))}" for axis, line in found.items())
    return drawing.figure(f"A box is a rank. A frame is a whole model, and a row of it is a stage "
                          f"of the pipeline. Rank {chosen} is in one group along each axis: "
                          f"{told}.")


def _color(place: Mapping[str, int], here: Mapping[str, int]) -> str:
    """Returns the color of the only axis along which two ranks differ; white for several."""
    others = [axis for axis in place if place[axis] != here[axis]]
    if not others:
        return CHOSEN
    return COLORS[others[0]] if len(others) == 1 else "white"


def sent(bars: Mapping[str, Mapping[str, int]], *, title: str = "Sent by one rank in a step"
         ) -> Figure:
    """Draws the bytes that a rank sends to each of its groups, a panel for each name in `bars`.

    `bars`: name -> group -> bytes, such as from the log of a rank.

    Example: `mesh.sent({"rank 0": {"tp": 4096, "pp": 512}})`
    """
    order = [*COLORS, *sorted({group for each in bars.values() for group in each} - COLORS.keys())]
    bars = {name: {group: of_groups[group] for group in order if group in of_groups}
            for name, of_groups in bars.items()}
    n_rows = max(map(len, bars.values()))
    fig, axes = plt.subplots(1, len(bars), figsize=(MAX_WIDTH, 1.1 + 0.4 * n_rows), squeeze=False)
    for ax, (name, of_groups) in zip(axes[0], bars.items(), strict=True):
        drawn = ax.barh(list(of_groups), [each / max(of_groups.values()) for each in
                                          of_groups.values()],
                        color=[COLORS.get(group, "#BBBBBB") for group in of_groups], height=0.6)
        ax.bar_label(drawn, [size(round(each)) for each in of_groups.values()], padding=4,
                     fontsize=11)
        ax.invert_yaxis()
        ax.set(xlim=(0, 1.45), xticks=[], xlabel="bytes, relative to the largest", title=name)
    fig.suptitle(title, fontweight="bold")
    fig.set_label("; ".join(f"{name}: " + ", ".join(
        f"{group} {size(round(each))}" for group, each in of_groups.items())
        for name, of_groups in bars.items()) + ".")
    return fig
