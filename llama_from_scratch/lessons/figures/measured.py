"""Draws the times of the kernels on real GPUs.

The times are the committed results of `python3 start.py gpu`. Without results, a message is printed
instead.

Nothing here measures or estimates. Each bar is from a real run, whose device and date are under the
picture. Notebooks 31, 32 and 36 end with it.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.look import BLACK, BLUE, GREEN, ORANGE, SKY

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"
_WAYS = {"time": ("this kernel", BLUE), "library": ("best library function", GREEN),
         "compiled": ("torch.compile", SKY),
         "eager": ("eager PyTorch", ORANGE)}
NONE_YET = ("No run on a GPU has been committed yet, so there is nothing to draw. On a machine "
            "with an NVIDIA GPU, `python3 start.py gpu --out results` makes one in a few minutes.")


def runs(folder: Path = RESULTS) -> list[dict]:
    """Returns all committed runs that hold timings, newest first.

    They are the files gpu-*.json that kernels/trial/gpu.py writes.
    """
    found = [json.loads(path.read_text()) for path in folder.glob("gpu-*.json")]
    return sorted((run for run in found if run.get("rows")), key=lambda run: run["machine"]["date"],
                  reverse=True)


def draw(kernels: Sequence[str], *, folder: Path = RESULTS) -> Figure | None:
    """Draws the time of each kernel next to its alternatives in the newest run.

    Each title gives the kernel's share of a copy's bandwidth. Returns None if there is no run.

    `kernels`: how their names in the results begin, such as "rms_norm" for forward and backward.
    """
    newest = next(iter(runs(folder)), None)
    if newest is None:
        print(NONE_YET)
        return None
    rows = [row for row in newest["rows"] if row["kernel"].startswith(tuple(kernels))]
    if not rows:
        names = ", ".join(row["kernel"] for row in newest["rows"])
        raise ValueError("no kernel of the newest run has a name that begins with "
                         f"{' or '.join(kernels)}; the run timed {names}")
    fig, axes = plt.subplots(len(rows), 1, figsize=(8, 0.5 + 1.3 * len(rows)), squeeze=False)
    for ax, row in zip(axes[:, 0], rows, strict=True):
        ways = [(label, color, row[key]["median"])
                for key, (label, color) in _WAYS.items() if row[key]]
        labels = [row["library_name"] if label == "best library "
                                                  "function" else label for label, _, _ in ways]
        bars = ax.barh(labels, [us for *_, us in ways], color=[color for _, color, _ in ways])
        ax.bar_label(bars, [f"{us:,.0f} µs" for *_, us in ways], padding=4, fontsize=11)
        ax.axvline(row["n_bytes"] / newest["copy_bytes_per_s"] * 1e6, color=BLACK, linestyle=":")
        ax.invert_yaxis()
        ax.margins(x=0.15)
        ax.set_title(f"{row['kernel']}, {row['dtype']}: {row['share_of_copy']:.0%} "
                     "of a copy's bandwidth", fontsize=12)
    machine = newest["machine"]
    axes[-1, 0].set_xlabel("microseconds; dotted line: a copy of the same number of bytes\n"
                           f"{machine['device']}, {machine['date']}, PyTorch {machine['torch']}")
    return fig
