"""A widget with a threshold on the refusal margin: which requests change sides when it moves.

Used by the chapter on safety (57).
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.look import BLACK, BLUE, ORANGE, RED
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore
from llama_from_scratch.tune.safeguards.margins import rates_at
from llama_from_scratch.tune.world.requests import KINDS_OF_DEEDS, Deed

_COLORS = {"harmful": RED, "borderline": ORANGE, "everyday": BLUE}


def refusal_threshold(
    asked: Sequence[Deed], margins: Sequence[float], *, start: int = 0
) -> Explorer:
    """Returns a widget that refuses the requests with a margin above the threshold.

    `margins`: one for each request. Raises ValueError as `refusal_threshold_frame` does.
    """
    def draw(threshold: int) -> Figure:
        return refusal_threshold_frame(asked, margins, threshold=threshold)

    limit = int(max(map(abs, margins), default=0)) + 1
    return explore(draw, title="Where should refusing begin?",
                   controls={"threshold": (-limit, limit)},
                   labels={"threshold": "refuse above this margin"}, start={"threshold": start})


def refusal_threshold_frame(
    asked: Sequence[Deed], margins: Sequence[float], *, threshold: int
) -> Figure:
    """Draws each request at its margin, in a row for its kind, and the mistakes at a threshold.

    Below is, for each sort of mistake, the request nearest to the threshold. Raises
    ValueError unless there is one margin for each request.
    """
    if len(asked) != len(margins):
        raise ValueError("each request has a margin; got "
                         f"{len(asked)} requests and {len(margins)} margins")
    by_kind = {kind: [m for each, m in zip(asked, margins, strict=True) if each.kind == kind]
               for kind in KINDS_OF_DEEDS}
    rates = rates_at(float(threshold), harmful=torch.tensor(by_kind["harmful"]),
                     harmless=torch.tensor(by_kind["borderline"]))
    fig, ax = plt.subplots(figsize=(9, 3.6))
    for row, (kind, found) in enumerate(by_kind.items()):
        heights = [row + 0.5 * ((7 * i) % 11 / 10 - 0.5) for i in range(len(found))]
        ax.scatter(found, heights, s=22, alpha=0.6, color=_COLORS[kind])
    ax.axvline(threshold + 0.0, color=BLACK, lw=2)
    ax.set_yticks(range(3), KINDS_OF_DEEDS)
    ax.set(ylim=(2.6, -0.6), title=f"Violations {rates.violation_rate:.0%}, false refusals "
           f"{rates.false_refusal_rate:.0%}")
    lines = [f"answered, but harmful: {_nearest(asked, margins, threshold, 'harmful')}",
             f"refused, but harmless: {_nearest(asked, margins, threshold, 'borderline')}"]
    ax.set_xlabel("margin: answered left of the line, refused right of it\n" + "\n".join(lines))
    fig.set_label(f"At threshold {threshold}, {rates.violation_rate:.0%} of the harmful requests "
                  f"are answered and {rates.false_refusal_rate:.0%} of the borderline ones "
                  f"refused. {'; '.join(lines)}")
    return fig


def _nearest(asked: Sequence[Deed], margins: Sequence[float], threshold: int, kind: str) -> str:
    """Returns the request on the wrong side that is nearest to the threshold."""
    wrong = [(abs(margin - threshold), each.user)
             for each, margin in zip(asked, margins, strict=True)
             if each.kind == kind and (margin > threshold) != (kind == "harmful")]
    return min(wrong)[1] if wrong else "none"
