"""What rounding costs: the same windows of text, read by both models, one difference for each.

Losses of different windows spread a hundred times as much as two roundings of one model differ.
So the difference is taken window by window, and the standard error comes from these differences.

Notebook 60.
"""

import math

import torch

from llama_from_scratch.config import record
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train.data import Packed
from llama_from_scratch.train.loss import sum_of_nats
from llama_from_scratch.tune.evals import Mean, mean


@record
class Reading:
    """How many nats a model needs for each window of a text, and how long the windows are.

    `windows`: how the text was cut, so that only readings of the same windows are compared.
    """

    nats: tuple[float, ...]
    n_tokens: tuple[int, ...]
    n_bytes: int
    windows: str

    @property
    def bits_per_byte(self) -> float:
        """The bits that a byte of the text costs."""
        return math.fsum(self.nats) / self.n_bytes / math.log(2)


@torch.no_grad()
def read(
    model: Llama, data: Packed, *, seq_len: int = 256, n_windows: int | None = None
) -> Reading:
    """Returns what each window of `seq_len` tokens costs, in order, one window at a time.

    `n_windows`: only the first ones. Raises ValueError for less than two windows.
    """
    nats, n_tokens, n_bytes = [], [], 0
    for batch in data.in_order(batch_size=1, seq_len=seq_len):
        if n_windows is not None and len(nats) == n_windows:
            break
        nats.append(sum_of_nats(model, batch.to(model.device)).item())
        n_tokens.append(batch.n_targets)
        n_bytes += data.n_bytes_in(batch.targets)
    if len(nats) < 2:
        raise ValueError("a difference with a standard error needs at least two windows of text; "
                         f"got {len(nats)} of {seq_len} tokens. Give more text, or a smaller "
                         "seq_len")
    return Reading(nats=tuple(nats), n_tokens=tuple(n_tokens), n_bytes=n_bytes,
                   windows=f"{data.digest[:16]}, {seq_len} tokens, {len(nats)} windows")


def cost(reading: Reading, reference: Reading) -> Mean:
    """Returns by how many nats per token a model is worse than the reference, with its error.

    Raises ValueError for readings of different windows.
    """
    if reading.windows != reference.windows:
        raise ValueError("only readings of the same windows can be compared; got "
                         f"{reading.windows} and {reference.windows}")
    n = len(reading.nats)
    mean_tokens = sum(reading.n_tokens) / n
    return mean((a - b) / mean_tokens for a, b in zip(reading.nats, reference.nats, strict=True))
