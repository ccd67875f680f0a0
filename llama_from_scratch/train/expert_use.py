"""Which experts each token of the vocabulary goes to, counted over a text, layer by layer.

From these counts follows how evenly experts are used, and how many bits the token's id tells about
its expert. An estimate from few tokens is too high: even for experts that are drawn at random, some
ids meet some experts more often. `chance` measures how much that is.

L layers with experts, V token ids, E experts. Notebook 23. Source of the bias: Miller, Note on the
Bias of Information Estimates, 1955.
"""

import math
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.files import replacing_file
from llama_from_scratch.model.moe.balance import Balance, routings_of
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train.data import Packed


@record
class ExpertUse:
    """`counts[l, v, e]`: how often a token with the id v went to expert e of layer l."""

    counts: Int[Tensor, "L V E"]

    def balance(self, layer: int) -> Balance:
        """Returns the use of the experts of one layer."""
        return Balance(counts=self.counts[layer].sum(0))

    def write(self, file: Path) -> None:
        """Writes a .npz of counts."""
        with replacing_file(file) as unfinished, open(unfinished, "wb") as opened:
            np.savez_compressed(opened, counts=self.counts.numpy().astype(np.int32))

    @classmethod
    def read(cls, file: Path) -> "ExpertUse":
        """Returns what `write` wrote. Raises ValueError if it is missing or damaged."""
        try:
            with np.load(file, allow_pickle=False) as arrays:
                counts = torch.from_numpy(arrays["counts"].astype(np.int64))
        except (OSError, KeyError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise ValueError(f"the use of experts is a .npz with `counts`; {file} cannot be read "
                             f"({type(error).__name__}: {error}). Make it again with `python "
                             "data/make_baselines.py experts`") from error
        return cls(counts=counts)


@torch.no_grad()
def use_of_experts(
    model: Llama, data: Packed, *, batch_size: int, seq_len: int
) -> ExpertUse:
    """Returns the use of the experts over a text. Raises ValueError for a model without experts."""
    parts = []
    for batch in data.in_order(batch_size=batch_size, seq_len=seq_len):
        with routings_of(model) as found:
            batch.logits(model)
        V = model.config.vocab_size
        parts.append(torch.stack([
            _pairs(batch.ids.flatten(), passes[0].experts, shape=(V, passes[0].logits.shape[1]))
            for passes in found.values()]))
    return ExpertUse(counts=sum(parts))


def _pairs(
    ids: Int[Tensor, "N"], experts: Int[Tensor, "N A"], *, shape: tuple[int, int]
) -> Int[Tensor, "V E"]:
    V, E = shape
    return torch.bincount((ids[:, None] * E + experts).flatten(), minlength=V * E).view(V, E)


def information(counts: Int[Tensor, "*kinds E"]) -> float:
    """Returns how many bits the kind of a token tells about its expert, from counts of pairs.

    It is 0 if every kind has the same shares of experts, and at most the entropy of the experts.
    Few tokens make the estimate too high; see `chance`.
    """
    joint = counts.double().flatten(0, -2) / counts.sum()
    expected = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    seen = joint > 0
    return float((joint[seen] * (joint[seen] / expected[seen]).log()).sum()) / math.log(2)


def chance(counts: Int[Tensor, "kinds E"], *, seed: int) -> float:
    """Returns the information that is left if experts are dealt to the tokens at random.

    The kinds and the experts stay as frequent as they are. All that is left is the error of the
    estimate, so a claim about information must be much larger.
    """
    n_kinds, n_experts = counts.shape
    kinds_N = torch.arange(n_kinds).repeat_interleave(counts.sum(1))
    experts_N = torch.arange(n_experts).repeat_interleave(counts.sum(0))
    order_N = torch.randperm(len(experts_N), generator=torch.Generator().manual_seed(seed))
    return information(_pairs(kinds_N, experts_N[order_N][:, None], shape=(n_kinds, n_experts)))
