"""What a group of rewards does to each token, by the switches; and a run's reward while it runs.

Used by the chapter on learning by reward (54).
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import torch
from jaxtyping import Float
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from llama_from_scratch.lessons.figures import rewarding
from llama_from_scratch.lessons.figures.look import BLUE, RED, png
from llama_from_scratch.lessons.widgets import parts
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore
from llama_from_scratch.tune.policy.advantages import BASELINES, Baseline, advantages
from llama_from_scratch.tune.policy.policy_loss import (
    NORMALIZERS,
    Counts,
    Normalizer,
    policy_loss,
)
from llama_from_scratch.tune.policy.records import ReinforceStep

GROUPS = {
    "one is better": ((0.0, 0.0, 0.0, 1.0), (4, 4, 4, 4)),
    "all are good": ((9.0, 9.0, 9.0, 10.0), (4, 4, 4, 4)),
    "a long one is bad": ((1.0, 1.0, 1.0, 0.0), (2, 2, 2, 12)),
    "a long one is good": ((0.0, 0.0, 0.0, 1.0), (2, 2, 2, 12)),
    "nearly equal": ((1.0, 1.0, 1.0, 1.01), (4, 4, 4, 4)),
    "all equal": ((1.0, 1.0, 1.0, 1.0), (4, 4, 4, 4)),
}
"""Groups of answers: the rewards, and how many tokens each answer has."""
MAX_TOKENS = 12


def reward_group(
    groups: Mapping[str, tuple[Sequence[float], Sequence[int]]] = GROUPS
) -> Explorer:
    """Returns a widget: the advantages of a group, and how hard each of its tokens is pushed."""
    def draw(name: str, baseline: Baseline, is_scaled: bool, normalizer: Normalizer) -> Figure:
        rewards, n_tokens = groups[name]
        return reward_group_frame(rewards, n_tokens, baseline=baseline, is_scaled=is_scaled,
                                  normalizer=normalizer)

    return explore(draw, title="From rewards to tokens", start={"baseline": "mean"},
                   controls={"name": list(groups), "baseline": list(BASELINES), "is_scaled": False,
                             "normalizer": list(NORMALIZERS)},
                   labels={"name": "rewards", "is_scaled": "divided by the deviation",
                           "normalizer": "divided by"})


def token_pushes(
    rewards: Sequence[float], n_tokens: Sequence[int], *, baseline: Baseline, is_scaled: bool,
    normalizer: Normalizer, max_tokens: int = MAX_TOKENS,
) -> tuple[Float[Tensor, "B"], Float[Tensor, "B T"]]:
    """Returns the advantages, and by how much a step would raise each token's log-probability.

    The second is minus the gradient of the loss at the first update.
    """
    found_B = advantages(torch.tensor([rewards]), baseline=baseline, is_scaled=is_scaled)[0]
    is_written_BT = torch.arange(max(n_tokens)) < torch.tensor(n_tokens)[:, None]
    log_probs_BT = torch.zeros(is_written_BT.shape, requires_grad=True)
    counts = Counts(n_answers=len(rewards), n_tokens=sum(n_tokens), max_tokens=max_tokens)
    policy_loss(log_probs_BT, torch.zeros_like(log_probs_BT), found_B, is_written_BT,
                normalizer=normalizer, counts=counts).backward()
    return found_B, -log_probs_BT.grad


def reward_group_frame(
    rewards: Sequence[float], n_tokens: Sequence[int], *, baseline: Baseline, is_scaled: bool,
    normalizer: Normalizer,
) -> Figure:
    """Draws the rewards, the advantages, and the push on each token of a group."""
    found_B, pushes_BT = token_pushes(rewards, n_tokens, baseline=baseline, is_scaled=is_scaled,
                                      normalizer=normalizer)
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3.1), width_ratios=(1, 1, 1.5))
    names = [f"answer {i + 1}" for i in range(len(rewards))]
    left.barh(names, rewards, color="0.6")
    left.set(title="Reward", xlabel="reward")
    found = found_B.tolist()
    middle.barh(names, found, color=[BLUE if each > 0 else RED for each in found])
    middle.axvline(0, color="0.4", lw=1)
    widest = max(1e-3, *(abs(each) for each in found))
    middle.set(title="Advantage", xlabel="advantage", yticks=[], xlim=(-1.1 * widest, 1.1 * widest))
    largest = max(pushes_BT.abs().max().item(), 1e-9)
    for y, (n, row) in enumerate(zip(n_tokens, pushes_BT.tolist(), strict=True)):
        for t, push in enumerate(row[:n]):
            color = to_rgb(BLUE if push > 0 else RED)
            right.add_patch(plt.Rectangle((t, y - 0.4), 0.9, 0.8, edgecolor="0.6",
                                          facecolor=(*color, abs(push) / largest)))
        right.text(n + 0.2, y, f"{row[0]:+.4f}", va="center", fontsize=11)
    right.set(title="Push on each token", xlabel="token", yticks=[],
              xticks=range(0, max(n_tokens) + 1, 2), xlim=(0, 1.5 * max(n_tokens)),
              ylim=(len(rewards) - 0.5, -0.5))
    for ax in (left, middle):
        ax.set_ylim(len(rewards) - 0.5, -0.5)
        ax.locator_params(axis="x", nbins=4)
    fig.set_label("Advantages: " + ", ".join(f"{each:+.2f}" for each in found)
                  + ". Push on each token of an answer: "
                  + ", ".join(f"{row[0]:+.4f}" for row in pushes_BT.tolist()) + ".")
    return fig


class RewardPlot(ipywidgets.VBox):
    """Draws the mean reward of a run while it learns.

    Display it before the run, and pass it to `reinforce.fit` as `on_step`. `picture.value` is the
    PNG. `best`: the highest reward possible.
    """

    def __init__(self, *, n_steps: int, best: float | None = None) -> None:
        self._rewards: list[float] = []
        self._best, self._next_s = best, 0.0
        self.bar = ipywidgets.IntProgress(max=n_steps, description="steps",
                                          layout={"width": "32em", "max_width": "100%"})
        self.picture = parts.picture()
        super().__init__([parts.heading(""), self.bar, parts.framed(self.picture)])
        self.add_class(parts.WIDGET_CLASS)
        self._draw()

    def __call__(self, step: ReinforceStep) -> None:
        self._rewards.append(step.reward)
        is_last = len(self._rewards) == self.bar.max
        began_s = time.monotonic()
        if began_s < self._next_s and not is_last:
            return
        self._draw()
        self._next_s = parts.next_drawing_s(began_s, time.monotonic())

    def _draw(self) -> None:
        self.bar.value = len(self._rewards)
        figure = rewarding.curves({"this run": self._rewards}, best=self._best)
        self.picture.value = png(figure)
        plt.close(figure)

    def _repr_mimebundle_(self, **settings: Any) -> dict[str, Any]:
        still = {"text/plain": "a live plot of the reward (run the cell to watch it)"}
        return super()._repr_mimebundle_(**settings) | still
