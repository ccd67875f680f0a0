"""The best of n by a judge with noise, in a pool where one answer may fool it.

Used by the chapter on reward models (52).
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.look import BLUE, ORANGE, RED
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore
from llama_from_scratch.tune.best_of import expected_best, kl_bound

POOL = (3.0, 2.0, 2.0, 2.0, 1.5, 1.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0,
        -0.5, -0.5, -0.5, -1.0, -1.0, -2.0)
"""True scores of 24 answers, from a perfect one to a bad one."""
NOISES = (0.0, 0.5, 1.0, 2.0, 4.0)


def noisy_judge(*, pool: Sequence[float] = POOL) -> Explorer:
    """Returns a widget: n and the judge's noise, with the answers that win and what they score."""
    def draw(n: int, noise: float, is_fooled: bool) -> Figure:
        return noisy_judge_frame(n, noise=noise, is_fooled=is_fooled, pool=pool)

    return explore(draw, title="Which answers win?",
                   controls={"n": (1, len(pool)), "noise": list(NOISES), "is_fooled": False},
                   labels={"n": "n, answers drawn", "noise": "noise of the judge",
                           "is_fooled": "one answer fools the judge"},
                   start={"n": 4, "noise": 1.0})


def noisy_judge_frame(
    n: int, *, noise: float, is_fooled: bool, pool: Sequence[float] = POOL, seed: int = 0
) -> Figure:
    """Draws each answer by both its scores, as large as its chance to be the best of n.

    The judge's score is the true score plus normal `noise`, except that with `is_fooled` the worst
    answer has the highest.
    """
    true = np.array(pool, dtype=float)
    judged = true + noise * np.random.default_rng(seed).standard_normal(len(true))
    if is_fooled:
        judged[true.argmin()] = judged.max() + 1
    chances = np.array([expected_best(judged.tolist(), n, values=row.tolist())
                        for row in np.eye(len(true))])
    counts = range(1, len(true) + 1)
    curve = [expected_best(judged.tolist(), k, values=true.tolist()) for k in counts]
    own = [expected_best(judged.tolist(), k, values=judged.tolist()) for k in counts]
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.7))
    left.scatter(judged, true, s=20 + 700 * chances, color=BLUE, alpha=0.5, lw=0)
    left.set(title=f"{len(true)} answers: large ones win",
             xlabel="the judge's score", ylabel="true score")
    left.margins(0.15)
    right.plot(counts, curve, color=BLUE, label="true score")
    right.plot(counts, own, color=ORANGE, ls="--", label="the judge's score")
    right.plot([n], [curve[n - 1]], "o", color=RED, ms=9)
    right.set(title=f"Best of {n}: true score {curve[n - 1]:.2f}", xlabel="n, answers drawn",
              ylabel="expected score")
    fig.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=2)
    likeliest = int(chances.argmax())
    fig.set_label(f"Best of {n}: expected true score {curve[n - 1]:.2f}, by the judge's own count "
                  f"{own[n - 1]:.2f}. The likeliest winner has the true score {true[likeliest]:g} "
                  f"and wins {100 * chances[likeliest]:.0f} % of the draws. The KL divergence from "
                  f"the model is at most {kl_bound(n):.2f} nats.")
    return fig
