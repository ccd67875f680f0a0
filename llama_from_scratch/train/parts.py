"""The parts of a training step, each of which can be wrapped or exchanged alone.

A step is: a batch, backward through the loss of each micro-batch, `reduce`, `clip`, the optimizer's
step at the rate of the `schedule`, and `save` when it is due. With several processes, each computes
its `share` of the rows, `reduce` adds up gradients and losses, and only one process may `hold` the
folder and `save`. To use another loss or optimizer, exchange only that part.

Notebook 17.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from llama_from_scratch.checkpoint import folders
from llama_from_scratch.config import record
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train import resume
from llama_from_scratch.train.loss import evaluate, sum_of_nats
from llama_from_scratch.train.optimizer import AdamW, Group, clip_gradients
from llama_from_scratch.train.protocols import Loss, Optimizer, StepBatch
from llama_from_scratch.train.records import Evaluation, Step, TrainConfig
from llama_from_scratch.train.schedule import learning_rate


def adamw(groups: Sequence[Group], config: TrainConfig) -> AdamW:
    """Returns the optimizer of the course, with the settings of a run."""
    return AdamW(groups, beta1=config.beta1, beta2=config.beta2, eps=config.adam_eps)


def all_rows(batch: StepBatch) -> StepBatch:
    """Returns the batch. A single process computes all of it."""
    return batch


def as_it_is(model: Llama, loss: Tensor) -> Tensor:
    """Returns the loss. A single process already has the whole gradient and the whole loss."""
    return loss


def nothing_more(*, is_last: bool) -> AbstractContextManager[None]:
    """Returns an empty context. A single process has no other to exchange gradients with."""
    return contextlib.nullcontext()


def one_after_another(
    model: Llama, micro_batches: Sequence[StepBatch], parts: "TrainParts", *, n_targets: int,
    is_bf16: bool,
) -> Float[Tensor, ""]:
    """Adds the gradients of each micro-batch to the parameters', and returns the sum of the losses.

    Each loss is divided by `n_targets`, which counts the whole batch. The mean of the
    micro-batches' means would be another number: it gives a target more weight if its micro-batch
    has fewer targets.
    """
    total = torch.zeros((), device=model.device)
    for number, micro in enumerate(micro_batches, 1):
        with parts.micro_batch(is_last=number == len(micro_batches)):
            partial = parts.loss(model, micro.to(model.device), is_bf16=is_bf16) / n_targets
            partial.backward()
        total = total + partial.detach()  # float64 if the loss is
    return total


def own_weights(model: Llama) -> Iterable[tuple[str, Tensor]]:
    """Returns all weights of the model with their names. A single process has all of them."""
    return model.named_parameters()


def its_own_word(is_interrupted: bool) -> bool:
    """Returns the argument. A single process decides alone when to stop."""
    return is_interrupted


@record
class TrainParts:
    """The parts of a training step in addition to the model and the data.

    `share(batch)` returns the rows of a batch that this process computes. `loss(model, batch,
    is_bf16=)` returns a sum over their targets, which is divided by the number of targets in the
    whole batch. `holds_logits`: whether this loss has all logits of a micro-batch in memory at one
    time. `micro_batch(is_last=)` is a context around forward and backward of each micro-batch of a
    step. `accumulate(model, micro_batches, parts, n_targets=, is_bf16=)` does forward and backward
    of all of them, and returns the sum of the losses. `reduce(model, loss)` is called between
    backward and clipping; it completes the gradients and returns the loss of the whole batch.
    `clip(parameters, max_norm=)` returns the gradient's length before clipping.
    `make_optimizer(groups, config)` returns the optimizer. `schedule(step, n_steps=, peak=,
    n_warmup=, final_ratio=)` returns the learning rate of a step. `evaluate(model, data,
    batch_size=, seq_len=, is_bf16=)` returns the validation of the whole text. `weights(model)`
    yields the weights that this process holds, by name. `is_stopping(is_interrupted)` returns
    whether all processes stop, from whether this one was interrupted. `begin(run, folder,
    is_resumed=)` returns the steps already taken and puts a saved run back. `save(folder, run,
    steps=)` writes a checkpoint. `hold(folder)` is a context manager around the whole run, during
    which no other process writes to the folder; it yields the folder's true path.
    """

    share: Callable[[StepBatch], StepBatch] = all_rows
    loss: Loss = sum_of_nats
    holds_logits: bool = True
    micro_batch: Callable[..., AbstractContextManager] = nothing_more
    accumulate: Callable[..., Tensor] = one_after_another
    reduce: Callable[[Llama, Tensor], Tensor] = as_it_is
    clip: Callable[..., Tensor] = clip_gradients
    make_optimizer: Callable[[Sequence[Group], TrainConfig], Optimizer] = adamw
    schedule: Callable[..., float] = learning_rate
    evaluate: Callable[..., Evaluation] = evaluate
    weights: Callable[[Llama], Iterable[tuple[str, Tensor]]] = own_weights
    is_stopping: Callable[[bool], bool] = its_own_word
    begin: Callable[..., list[Step]] = resume.begin
    save: Callable[..., None] = resume.save
    hold: Callable[[str | Path], AbstractContextManager[Path]] = folders.held
