"""Draws one training step, with the numbers of a real step.

Notebook 17.
"""

import copy

import torch
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.flow import Drawing
from llama_from_scratch.lessons.figures.look import RED
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train.data import Packed
from llama_from_scratch.train.loop import train
from llama_from_scratch.train.records import TrainConfig


def training_step(model: Llama, data: Packed, config: TrainConfig) -> Figure:
    """Draws the first step of `config`, from text to changed weights; a copy of the model takes it.

    Example: `learning.training_step(model, data, config)`
    """
    learner = copy.deepcopy(model)
    history = train(learner, data, config=config, on_step=_stop_after_one)
    step = history.steps[0]
    batch = data.batch(0, batch_size=config.batch_size, seq_len=config.seq_len, seed=config.seed)
    B, T = batch.ids.shape
    with torch.no_grad():
        changed = sum(float((a - b).abs().sum()) for a, b in
                      zip(learner.parameters(), model.parameters(), strict=True))
    change = changed / sum(p.numel() for p in model.parameters())
    drawing = Drawing("One training step: read, guess, compare, correct")
    inputs = drawing.tensor("inputs", (0.75, 0.5), shape={"B": B, "T": T})
    targets = drawing.tensor("targets", (0.75, 2.0), shape={"B": B, "T": T})
    drawing.note("the same text, one token later", (0.15, 2.55))
    llama = drawing.step("Llama", (2.35, 0.5), does="weights",
                         detail=f"{model.config.n_params:,} weights")
    drawing.arrow(inputs, llama)
    logits = drawing.tensor("logits", (4.15, 0.5),
                            shape={"B": B, "T": T, "V": model.config.vocab_size})
    drawing.arrow(llama, logits)
    loss = drawing.step("cross-entropy", (4.15, 2.0),
                        detail=f"loss {step.loss:.2f}\nnats per token")
    drawing.arrow(logits, loss)
    drawing.arrow(targets, loss)
    gradients = drawing.step("backward", (5.95, 2.0), detail="a gradient for each weight\n"
                             f"together of length {step.grad_norm:.2f}")
    drawing.arrow(loss, gradients, color=RED)
    clip = drawing.step("clip", (7.75, 2.0), detail=f"to length {config.max_grad_norm:g}\nat most",
                        does="choice")
    drawing.arrow(gradients, clip, color=RED)
    adamw = drawing.step("AdamW", (7.75, 0.5), does="memory",
                         detail=f"learning rate {step.lr:.1e}\nkeeps averages")
    drawing.arrow(clip, adamw, color=RED)
    drawing.arrow(adamw, (adamw.x, -0.15), (llama.x, -0.15), llama, color=RED)
    drawing.note(f"the weights change by {change:.1e} on average", (3.6, -0.3))
    return drawing.figure(
        f"The targets are the inputs, one token later. The loss is {step.loss:.2f}. The red "
        f"arrows lead back to the weights, which change by {change:.1e} on average.")


def _stop_after_one(step: object) -> None:
    raise KeyboardInterrupt
