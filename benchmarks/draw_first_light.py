"""Draws the README's first picture: a small model learns to write on one core.

The left side shows the loss, and the right side what the model writes before and during the run. It
draws the stored run of the experiment "first-light", which `python data/make_baselines.py` makes
again.

    python benchmarks/draw_first_light.py        # writes benchmarks/results/first_light.png
"""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt

from llama_from_scratch.experiments import baseline, named
from llama_from_scratch.experiments.running import prepare, sampler
from llama_from_scratch.lessons import figures
from llama_from_scratch.lessons.figures.losses import running_mean

MOMENTS = (60, 300, 900)


def main() -> None:
    figures.style()
    experiment = named("first-light")
    run = baseline(experiment).runs[0]
    losses, samples = run.curves.loss.tolist(), dict(run.samples)
    pages = {"before the first step": sampler(experiment, prepare(experiment))()}
    pages |= {f"after step {moment}": samples[moment] for moment in MOMENTS}

    fig, (left, right) = plt.subplots(1, 2, figsize=(12, 4), width_ratios=(1, 1.45))
    left.plot(losses, color=figures.BLUE, alpha=0.3, linewidth=1)
    smooth = running_mean(losses)
    left.plot(smooth, color=figures.BLUE)
    left.plot([m - 1 for m in MOMENTS], [smooth[m - 1] for m in MOMENTS], "o", color=figures.RED)
    left.set(xlabel="steps", ylabel="loss (nats per token)",
             title=f"{run.metrics['n_params']:,} parameters, one core, "
                   f"{run.metrics['seconds']:.0f} s")
    top = 1.0
    for moment, text in pages.items():
        text = "".join(c if c.isprintable() else "?" for c in text.replace("\n", " "))
        lines = textwrap.wrap(text, 74)[:4]
        right.text(0, top, moment, va="top", fontsize=11, weight="bold", color=figures.RED)
        right.text(0, top - 0.065, "\n".join(lines), va="top", family="monospace", fontsize=10.5,
                   parse_math=False)
        top -= 0.12 + 0.052 * len(lines)
    right.set_axis_off()
    (Path(__file__).parent / "results" / "first_light.png").write_bytes(figures.png(fig))


if __name__ == "__main__":
    main()
