"""What a run requires of its batches, data, loss and optimizer: any class with these methods fits.

Notebook 17.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train.data import Batch


@runtime_checkable
class StepBatch(Protocol):
    """What a step reads. `Batch` is one; `tune.pair_rows.PairBatch` has two rows for each target.

    `ids` has one entry along its first axis for each part that `split` can separate. `n_targets`:
    by what the sum of the loss is divided.
    """

    @property
    def ids(self) -> Tensor: ...
    @property
    def n_targets(self) -> int: ...
    def to(self, device: torch.device | str) -> "StepBatch": ...
    def split(self, n_rows: int) -> "list[StepBatch]": ...


@runtime_checkable
class Data(Protocol):
    """Where batches come from: a function of the step's number and the seed. `Packed` is one."""

    def batch(self, step: int, *, batch_size: int, seq_len: int, seed: int) -> StepBatch: ...


@runtime_checkable
class SavedData(Data, Protocol):
    """Data that a resumed run can be compared with, and its tokenizer.

    Equal data have equal digests, and different data have different digests.
    """

    tokenizer: Any
    n_documents: int
    n_tokens: int
    digest: str


@runtime_checkable
class Validation(SavedData, Protocol):
    """Data that can be read once from its beginning to its end, and whose bytes can be counted.

    `Packed` is one: texts. `tune.rows.Rows` is another: dialogs, of which answers are targets.
    """

    def in_order(self, *, batch_size: int, seq_len: int) -> Iterator[Batch]: ...
    def n_bytes_in(self, targets: Int[Tensor, "B T"]) -> int: ...


@runtime_checkable
class Optimizer(Protocol):
    """What moves the weights. `AdamW` and `kernels.FusedAdamW` are two."""

    def zero_grad(self) -> None: ...
    def step(self, *, lr: float) -> object: ...
    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


@runtime_checkable
class Loss(Protocol):
    """A sum over the targets of a batch, to be divided by their number.

    It reads the kind of batch that the run's data make.
    """

    def __call__(self, model: Llama, batch: Any, *, is_bf16: bool) -> Tensor: ...
