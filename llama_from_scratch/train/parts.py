"""The parts of a training step, each of which can be wrapped or exchanged alone.

A step is: a batch, backward through the loss of each micro-batch, `reduce`, `clip`, the optimizer's
step at the rate of the `schedule`, and `save` when it is due. With several processes,
`count_targets` counts the targets of all, `reduce` adds up gradients and losses, and only one
process may `hold` the folder and `save`. To use another loss or optimizer, exchange only that part.

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
from llama_from_scratch.train.schedule import learning_rate


def adamw(groups: Sequence[Group], config: TrainConfig) -> AdamW:
    """Returns the optimizer of the course, with the settings of a run."""
    return AdamW(groups, beta1=config.beta1, beta2=config.beta2, eps=config.adam_eps)


def n_targets(batch: Batch) -> int:
    """Returns the number of targets of this batch, which is all of them in a single process."""
    return batch.n_targets


def as_it_is(model: Llama, loss: Tensor) -> Tensor:
    """Returns the loss. A single process already has the whole gradient and the whole loss."""
    return loss


@record
class TrainParts:
    """The parts of a training step in addition to the model and the data.

    `loss(model, batch, is_bf16=)` returns a sum over the targets. `count_targets(batch)` returns
    the number to divide that sum by, for the whole batch. `reduce(model, loss)` is called between
    backward and clipping; it completes the gradients and returns the loss of the whole batch.
    `clip(parameters, max_norm=)` returns the gradient's length before clipping.
    `make_optimizer(groups, config)` returns the optimizer. `schedule(step, n_steps=, peak=,
    n_warmup=, final_ratio=)` returns the learning rate of a step. `save(folder, run, steps=)`
    writes a checkpoint. `hold(folder)` is a context manager around the whole run, during which no
    other process writes to the folder; it yields the folder's true path.
    """

    loss: Loss = sum_of_nats
    count_targets: Callable[[Batch], int] = n_targets
    reduce: Callable[[Llama, Tensor], Tensor] = as_it_is
    clip: Callable[..., Tensor] = clip_gradients
    make_optimizer: Callable[[Sequence[Group], TrainConfig], Optimizer] = adamw
    schedule: Callable[..., float] = learning_rate
    save: Callable[..., None] = resume.save
    hold: Callable[[str | Path], AbstractContextManager[Path]] = folders.held
