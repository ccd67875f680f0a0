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

from llama_from_scratch.kernels.trial import results
from llama_from_scratch.lessons.figures.look import BLACK, BLUE, GREEN, ORANGE, SKY

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"
_COLORS = {"torch.compile": SKY, "eager": ORANGE}
NONE_YET = ("No run on a GPU has been committed yet, so there is nothing to draw. On a machine "
            "with an NVIDIA GPU, `python3 start.py gpu --out results` makes one in a few minutes.")


def rows(folder: Path = RESULTS) -> list[dict]:
    """Returns every row of times of all committed runs, newest first.

    They come from the files gpu-*.json that kernels/trial/gpu.py writes. Each row also has the
    device, and the versions and the date of its measurement.
    """
    found = []
    for path in folder.glob("gpu-*.json"):
        report = json.loads(path.read_text())
        if "parts" in report:   # the results of many GPUs have another form
            found += [row | report["machine"] for row in results.rows(report)]
    return sorted(found, key=lambda row: row["versions"]["date"], reverse=True)


def newest(kernels: Sequence[str], *, folder: Path = RESULTS) -> list[dict]:
    """Returns the rows of these kernels on the device that was measured last.

    `kernels`: how their names begin. Raises ValueError if no row has such a name.
    """
    found = rows(folder)
    chosen = [row for row in found if row["kernel"].startswith(tuple(kernels))]
    if found and not chosen:
        names = ", ".join(row["kernel"] for row in found)
        raise ValueError("no kernel of the newest run has a name that begins with "
                         f"{' or '.join(kernels)}; the run timed {names}")
    return [row for row in chosen if row["device"] == chosen[0]["device"]]


def draw(kernels: Sequence[str], *, folder: Path = RESULTS) -> Figure | None:
    """Draws the time of each kernel next to its alternatives on the device measured last.

    Each title gives the kernel's share of a copy's bandwidth, or of a matrix product's rate for a
    kernel that arithmetic limits. Returns None if there is no run.

    `kernels`: how their names in the results begin, such as "rms_norm" for forward and backward.
    """
    chosen = newest(kernels, folder=folder)
    if not chosen:
        print(NONE_YET)
        return None
    fig, axes = plt.subplots(len(chosen), 1, figsize=(8, 0.5 + 1.3 * len(chosen)), squeeze=False)
    for ax, row in zip(axes[:, 0], chosen, strict=True):
        ways = [("this kernel", BLUE, row["time"]["median"])]
        ways += [(each["name"], _COLORS.get(each["name"], GREEN), each["time"]["median"])
                 for each in row["rivals"] if each["time"]]
        bars = ax.barh([name for name, *_ in ways], [us for *_, us in ways],
                       color=[color for _, color, _ in ways])
        ax.bar_label(bars, [f"{us:,.0f} µs" for *_, us in ways], padding=4, fontsize=11)
        share, of_what, floor_us = _floor(row)
        ax.axvline(floor_us, color=BLACK, linestyle=":")
        ax.invert_yaxis()
        ax.margins(x=0.15)
        ax.set_title(f"{row['kernel']}, {row['dtype']}: {share:.0%} of {of_what}", fontsize=12)
    last = chosen[0]
    axes[-1, 0].set_xlabel(
        "microseconds; dotted line: a copy of the same bytes, or a product of as many operations\n"
        f"{last['device']}, {last['versions']['date']}, PyTorch {last['versions']['torch']}")
    return fig


def _floor(row: dict) -> tuple[float, str, float]:
    """Returns the share of the floor, what the floor is, and its time in microseconds."""
    if row["n_operations"]:
        rate = row["floors"]["product_operations_per_s"]
        return row["share_of_product"], "a product's rate", row["n_operations"] / rate * 1e6
    rate = row["floors"]["copy_bytes_per_s"]
    return row["share_of_copy"], "a copy's bandwidth", row["n_bytes"] / rate * 1e6
