"""The parts of a training step, by protocol: each can be wrapped or exchanged alone.

A step is: a batch, backward through the loss of each micro-batch, `reduce`, `clip`, the optimizer's
step, and `save` when it is due. With several processes, `count_targets` counts the targets of all,
`reduce` adds up gradients and losses, and `save` writes in one process only, which
alone may `hold` the folder. To use another loss or
optimizer, exchange that part alone.

Notebook 17.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from torch import Tensor

from llama_from_scratch.checkpoint import folders
from llama_from_scratch.config import record
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train import resume
from llama_from_scratch.train.data import Batch
from llama_from_scratch.train.loss import sum_of_nats
from llama_from_scratch.train.optimizer import AdamW, Group, clip_gradients
from llama_from_scratch.train.protocols import Loss, Optimizer
from llama_from_scratch.train.records import TrainConfig


def adamw(groups: Sequence[Group], config: TrainConfig) -> AdamW:
    """The optimizer of the course, with the settings of a run."""
    return AdamW(groups, beta1=config.beta1, beta2=config.beta2, eps=config.adam_eps)


def n_targets(batch: Batch) -> int:
    """The targets of this batch: all there are, with a single process."""
    return batch.n_targets


def as_it_is(model: Llama, loss: Tensor) -> Tensor:
    """A single process has the whole gradient and the whole loss already."""
    return loss


@record
class TrainParts:
    """What a step of training consists of besides the model and the data.

    `loss(model, batch, is_bf16=)`: a sum over the targets. `count_targets(batch)`: what that sum is
    divided by, over the whole batch. `reduce(model, loss)`: called between backward and clipping;
    makes the gradients whole and returns the loss of the whole batch. `clip(parameters, max_norm=)`
    returns the gradient's length before it. `make_optimizer(groups, config)`.
    `save(folder, run, steps=)`: writes a checkpoint. `hold(folder)`: a context manager around the
    whole run, in which no other process writes there; gives the folder's true path.
    """

    loss: Loss = sum_of_nats
    count_targets: Callable[[Batch], int] = n_targets
    reduce: Callable[[Llama, Tensor], Tensor] = as_it_is
    clip: Callable[..., Tensor] = clip_gradients
    make_optimizer: Callable[[Sequence[Group], TrainConfig], Optimizer] = adamw
    save: Callable[..., None] = resume.save
    hold: Callable[[str | Path], AbstractContextManager[Path]] = folders.held
