"""Draws the README's first picture: a small model learns to write in a minute on one core.

The run is similar to notebook 17's. The left side shows the loss, and the right side what the model
writes after four numbers of steps.

    python benchmarks/draw_first_light.py        # writes benchmarks/results/first_light.png
"""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from llama_from_scratch import bundled
from llama_from_scratch.config import LayerSpec, LlamaConfig
from llama_from_scratch.generate.generate import stream_text
from llama_from_scratch.generate.sampling import Sampling
from llama_from_scratch.lessons import figures
from llama_from_scratch.lessons.figures.losses import running_mean
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import BEGIN_AND_END, Tokenizer
from llama_from_scratch.train import (
    Packed,
    Step,
    TrainConfig,
    read_documents,
    split_validation,
    train,
)

MOMENTS = (1, 60, 300, 900)


def main() -> None:
    figures.style()
    torch.set_num_threads(1)
    documents = read_documents(bundled.path("stories.txt"), separator="\n\n")
    stories, _ = split_validation(documents, fraction=0.05)
    tokenizer = Tokenizer.train(stories[:1000], 768, special_tokens=BEGIN_AND_END)
    torch.manual_seed(0)
    model = Llama(LlamaConfig(
        dim=96, n_heads=4, n_kv_heads=2, ffn_dim=288, vocab_size=768, max_seq_len=512,
        norm_eps=1e-5, rope_theta=1e4, layers=(LayerSpec(),) * 4, is_tied=True))
    sampling = Sampling(temperature=0.6, top_k=20)
    pages = {}

    def watch(step: Step) -> None:
        if step.step + 1 in MOMENTS:
            pages[step.step + 1] = "".join(stream_text(
                model, tokenizer, prompt="One day", max_tokens=55, sampling=sampling, seed=1))

    config = TrainConfig(n_steps=900, batch_size=4, seq_len=256, peak_lr=6e-3, n_warmup=40)
    history = train(model, Packed(stories, tokenizer), config=config, on_step=watch)
    time_s = sum(step.time_s for step in history.steps)

    fig, (left, right) = plt.subplots(1, 2, figsize=(12, 4), width_ratios=(1, 1.45))
    left.plot(history.losses, color=figures.BLUE, alpha=0.3, linewidth=1)
    smooth = running_mean(history.losses)
    left.plot(smooth, color=figures.BLUE)
    left.plot([m - 1 for m in MOMENTS], [smooth[m - 1] for m in MOMENTS], "o", color=figures.RED)
    left.set(xlabel="steps", ylabel="loss (nats per token)",
             title=f"{model.config.n_params:,} parameters, one core, {time_s:.0f} s")
    top = 1.0
    for moment in MOMENTS:
        text = "".join(c if c.isprintable() else "?" for c in pages[moment].replace("\n", " "))
        lines = textwrap.wrap("One day" + text, 74)[:4]
        right.text(0, top, f"after step {moment}", va="top", fontsize=11, weight="bold",
                   color=figures.RED)
        right.text(0, top - 0.065, "\n".join(lines), va="top", family="monospace", fontsize=10.5,
                   parse_math=False)
        top -= 0.12 + 0.052 * len(lines)
    right.set_axis_off()
    (Path(__file__).parent / "results" / "first_light.png").write_bytes(figures.png(fig))


if __name__ == "__main__":
    main()
