"""Pictures of learning by reward: a group of answers, the curve of the reward, and the clip.

Notebook 54.
"""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.look import BLUE, GREEN, RED
from llama_from_scratch.tune.policy.policy_loss import gains

_WIDTH_LETTERS, _MOST_LINES = 62, 2


def group(
    texts: Sequence[str], rewards: Sequence[float], advantages: Sequence[float], *,
    last: str = "advantage",
) -> Figure:
    """Draws answers, and next to each its reward and its advantage.

    `last`: what the numbers of the last column are, if they are no advantages.

    Example: `rewarding.group(["Tom is here."], [1.0], [0.0])`
    """
    fig, ax = plt.subplots(figsize=(9.5, 0.62 * len(texts) + 0.7), layout="none")
    fig.subplots_adjust(left=0.02, right=0.98, top=0.9, bottom=0.02)
    largest = max(1e-9, *(abs(each) for each in advantages))
    for y, (text, reward, advantage) in enumerate(zip(texts, rewards, advantages, strict=True)):
        lines = textwrap.wrap(text, _WIDTH_LETTERS, max_lines=_MOST_LINES, placeholder=" ...")
        ax.text(0.0, y, "\n".join(lines) or "(nothing)", va="center", fontsize=11,
                parse_math=False)
        ax.text(0.62, y, f"{reward:+.2f}", va="center", ha="center", fontsize=12)
        ax.barh(y, 0.1 * advantage / largest, left=0.8, height=0.55,
                color=BLUE if advantage > 0 else RED)
        ax.text(0.98, y, f"{advantage:+.2f}", va="center", ha="right", fontsize=11)
    for x, words in ((0.0, "answer"), (0.62, "reward"), (0.8, last)):
        ax.text(x, -0.85, words, weight="bold", fontsize=12, ha="left" if x == 0 else "center",
                va="center")
    ax.axvline(0.8, ymax=len(texts) / (len(texts) + 0.7), color="0.4", lw=1)
    ax.set(xlim=(0, 1), ylim=(len(texts) - 0.5, -1.2))
    ax.axis("off")
    fig.set_label(f"{len(texts)} answers. Reward of each: "
                  + ", ".join(f"{each:g}" for each in rewards) + f". The {last} of each: "
                  + ", ".join(f"{each:+.2f}" for each in advantages) + ".")
    return fig


def curves(
    runs: Mapping[str, Sequence[float]], *, best: float | None = None, n_mean: int = 3,
    ylabel: str = "mean reward",
) -> Figure:
    """Draws the mean reward of each step, averaged over up to `n_mean` steps before it.

    `best`: the highest reward possible, drawn as a line.

    Example: `rewarding.curves({"GRPO": history.rewards}, best=3.0)`
    """
    fig, ax = plt.subplots(figsize=(8, 3.4))
    for name, rewards in runs.items():
        smooth = [float(np.mean(rewards[max(0, i + 1 - n_mean) : i + 1]))
                  for i in range(len(rewards))]
        ax.plot(range(1, len(rewards) + 1), smooth, label=name)
    if best is not None:
        ax.axhline(best, color="0.5", lw=1.2, ls="--", label="best possible")
    ax.set(title="Reward while learning", xlabel="step", ylabel=ylabel)
    ax.legend()
    fig.set_label("Mean reward. " + " ".join(
        f"{name}: {rewards[0]:.2f} at the first step, {rewards[-1]:.2f} at step {len(rewards)}."
        for name, rewards in runs.items() if len(rewards)))
    return fig


def clip(*, clip_low: float = 0.2, clip_high: float = 0.2) -> Figure:
    """Draws min(q A, clip(q) A) against the ratio q, for a good and for a bad answer.

    Example: `rewarding.clip(clip_low=0.2, clip_high=0.28)`
    """
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.4))
    ratio = torch.linspace(0.4, 1.8, 281)
    for ax, advantage, words in zip(axes, (1.0, -1.0), ("better", "worse"), strict=True):
        gain = gains(ratio.log()[:, None], torch.full_like(ratio, advantage), clip_low=clip_low,
                     clip_high=clip_high)[:, 0]
        ax.plot(ratio, advantage * ratio, color="0.7", ls="--", label="q A, without clip")
        ax.plot(ratio, gain, color=BLUE, label="with clip")
        flat = (1 + clip_high, 1.8) if advantage > 0 else (0.4, 1 - clip_low)
        ax.axvspan(*flat, color=RED, alpha=0.12, lw=0, label="no gradient")
        ax.plot(1, advantage, "o", color=GREEN, label="first update")
        ax.set(title=f"A = {advantage:+.0f}: {words} than its group", xlabel="ratio q",
               ylabel="gain")
    axes[0].legend(fontsize=9.5, loc="upper left")
    fig.set_label(f"With A = +1 the gain is flat for ratios above {1 + clip_high:g}. With A = -1 "
                  f"it is flat for ratios below {1 - clip_low:g}. A flat gain has no gradient.")
    return fig


def baseline(
    probability: float, rewards: tuple[float, float], *, around: float = 6.0
) -> Figure:
    """Draws the mean and the deviation of a bandit's gradient, against the baseline.

    The bandit takes action 1 with a `probability`, whose logit is its only weight.

    Example: `rewarding.baseline(0.5, (10.0, 12.0))`
    """
    p = probability
    expected = (1 - p) * rewards[0] + p * rewards[1]
    at = np.linspace(expected - around, expected + around, 121)
    drawn = np.stack([-p * (rewards[0] - at), (1 - p) * (rewards[1] - at)])
    mean = (1 - p) * drawn[0] + p * drawn[1]
    deviation = np.sqrt((1 - p) * (drawn[0] - mean) ** 2 + p * (drawn[1] - mean) ** 2)
    fig, ax = plt.subplots(figsize=(8, 3.2))
    ax.plot(at, mean, label="mean")
    ax.plot(at, deviation, label="standard deviation")
    ax.axvline(expected, color="0.5", lw=1.2, ls="--", label="mean reward")
    ax.set(title="The gradient that one action gives", xlabel="baseline, subtracted from rewards",
           ylabel="gradient")
    ax.legend()
    fig.set_label(f"The mean gradient is {mean[0]:.2f} for every baseline. Its deviation is "
                  f"{np.sqrt(p * (1 - p)) * abs(rewards[0] * p + rewards[1] * (1 - p)):.2f} "
                  f"without one, and {deviation.min():.2f} at best.")
    return fig
