"""One pair under DPO's loss: its two changes, its loss, and how hard it pulls.

Used by the chapter on direct preference optimization (53).
"""

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.look import BLUE, ORANGE, RED
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore

_WIDEST = 40


def preference_pull(*, betas: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)) -> Explorer:
    """Returns a widget: beta and the changes of both log-probabilities, with the loss they give."""
    def draw(chosen: int, rejected: int, beta: float) -> Figure:
        return preference_pull_frame(chosen, rejected, beta=beta)

    return explore(draw, title="What one pair asks for",
                   controls={"chosen": (-20, 20), "rejected": (-20, 20), "beta": list(betas)},
                   labels={"chosen": "change of log p(chosen)",
                           "rejected": "change of log p(rejected)"},
                   start={"chosen": -4, "rejected": -9, "beta": betas[1]})


def preference_pull_frame(chosen: float | int, rejected: float | int, *, beta: float) -> Figure:
    """Draws both changes, in nats, and the place of their margin on the curve of the loss."""
    margin = chosen - rejected
    loss, weight = float(np.logaddexp(0, -beta * margin)), beta / (1 + math.exp(beta * margin))
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    left.bar(["chosen", "rejected"], [chosen, rejected], color=[BLUE, ORANGE], width=0.5)
    left.axhline(0, color="0.3", lw=0.8)
    left.set(title=f"Margin {margin:+g} nats", ylabel="change of log p, nats", ylim=(-22, 22))
    at = np.linspace(-_WIDEST, _WIDEST, 201)
    right.plot(at, np.logaddexp(0, -beta * at), color=BLUE)
    right.plot([margin], [loss], "o", color=RED, ms=9)
    right.set(title=f"Loss {loss:.2f}, pull {weight:.3f}", xlabel="margin, nats", ylabel="loss")
    fig.set_label(f"Changes {chosen:+g} and {rejected:+g} give the margin {margin:+g}. With beta "
                  f"{beta:g} the loss is {loss:.2f} and the pair pulls with {weight:.3f}.")
    return fig
