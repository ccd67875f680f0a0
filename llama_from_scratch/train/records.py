"""The settings, steps and history of a run, as frozen records.

Notebook 17.
"""

import itertools
import math

from llama_from_scratch.config import record


@record
class TrainConfig:
    """Everything that defines a run except the model and the data.

    The defaults suit a model of 1M parameters on a laptop's CPU. A step reads `batch_size` windows
    of `seq_len` tokens. They go through the model `micro_batch_size` at a time, or all at once for
    None, with the same result. The learning rate rises for `n_warmup` steps to `peak_lr`, and then
    falls along a cosine to `final_lr_ratio` of it. `seed` decides the order of the data. `is_bf16`:
    see `sum_of_nats`; `bf16_pays_off` measures whether it is faster on this machine.
    """

    n_steps: int = 1200
    batch_size: int = 4
    seq_len: int = 256
    micro_batch_size: int | None = None
    peak_lr: float = 5e-3
    n_warmup: int = 100
    final_lr_ratio: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    adam_eps: float = 1e-8
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    seed: int = 0
    is_bf16: bool = False
    validate_every: int = 200
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        for name in ("n_steps", "batch_size", "micro_batch_size", "validate_every",
                     "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"TrainConfig.{name} must be at least 1; got {value}")
        for name in ("peak_lr", "adam_eps", "max_grad_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"TrainConfig.{name} must be above 0 and finite; "
                                 f"got {getattr(self, name)}")
        for name in ("final_lr_ratio", "beta1", "beta2", "weight_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"TrainConfig.{name} must be between 0 and 1; "
                                 f"got {getattr(self, name)}")
        if self.seq_len < 2 or self.seed < 0:
            raise ValueError("seq_len must be at least 2 and seed at least 0; "
                             f"got seq_len={self.seq_len}, seed={self.seed}")
        if not 0 <= self.n_warmup < self.n_steps:
            raise ValueError("the warm-up must be shorter than the run; "
                             f"got n_warmup={self.n_warmup}, n_steps={self.n_steps}. "
                             "A tenth of the run is usual")


@record
class Evaluation:
    """How well a text was predicted: `loss` in nats per token, and bits per byte.

    `n_targets`, `n_bytes`: how many tokens and bytes were predicted.
    """

    loss: float
    bits_per_byte: float
    n_targets: int
    n_bytes: int


@record
class Step:
    """One step of a run, with its measurements.

    `loss`: the batch's loss before the update, in nats per token. `grad_norm`: the gradient's
    length before clipping. `n_tokens`: the number of tokens read. `time_s`: the seconds of the
    update, without validation and checkpoints.
    """

    step: int
    loss: float
    lr: float
    grad_norm: float
    n_tokens: int
    time_s: float
    validation: Evaluation | None = None

    @property
    def tokens_per_s(self) -> float:
        return self.n_tokens / self.time_s


@record
class History:
    """All steps of a run, including the steps before it was resumed.

    `is_complete`: whether the run was not interrupted.
    """

    steps: tuple[Step, ...]
    is_complete: bool

    @property
    def losses(self) -> list[float]:
        return [step.loss for step in self.steps]

    @property
    def n_tokens(self) -> list[int]:
        """How many tokens were read up to and including each step."""
        return list(itertools.accumulate(step.n_tokens for step in self.steps))

    @property
    def validations(self) -> list[tuple[int, Evaluation]]:
        """The pairs (step, evaluation) of the steps with a validation."""
        return [(step.step, step.validation) for step in self.steps if step.validation is not None]
