"""What a run asks of its data, its loss and its optimizer: any class that has these methods fits.

Notebook 17.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor

from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train.data import Batch


@runtime_checkable
class Data(Protocol):
    """Where batches come from: a function of the step's number and the seed. `Packed` is one.

    Saving a run also needs what `Packed` has: tokenizer, n_documents, n_tokens and digest.
    """

    def batch(self, step: int, *, batch_size: int, seq_len: int, seed: int) -> Batch: ...


@runtime_checkable
class Optimizer(Protocol):
    """What moves the weights. `AdamW` and `kernels.FusedAdamW` are two."""

    def zero_grad(self) -> None: ...
    def step(self, *, lr: float) -> object: ...
    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


@runtime_checkable
class Loss(Protocol):
    """A sum over the targets of a batch, to be divided by their number."""

    def __call__(self, model: Llama, batch: Batch, *, is_bf16: bool) -> Tensor: ...
