"""Batches in which each window begins where a document does, so that requests precede answers.

A window of `data.Packed` begins anywhere, so it may hold an answer without its request. Here the
request comes before its answer in every window. In return, the ends of long documents occur less
often than their beginnings.

Notebooks 18 and 19.
"""

from collections.abc import Sequence

import numpy as np
import torch

from llama_from_scratch.train.data import IGNORE, Batch


class Aligned:
    """Documents of ids one after the other, from which windows are drawn at random."""

    def __init__(self, documents: Sequence[Sequence[int]]) -> None:
        self._ids = np.concatenate([np.array(ids, np.int64) for ids in documents])
        lengths = [len(ids) for ids in documents]
        self._starts = np.cumsum([0, *lengths[:-1]])
        self._start_of = np.repeat(self._starts, lengths)

    def batch(self, step: int, *, batch_size: int, seq_len: int, seed: int) -> Batch:
        """Returns the batch of a step, drawn from the seed and the step's number."""
        starts = self._starts[self._starts + seq_len < len(self._ids)]
        picks = np.random.default_rng([seed, step]).choice(starts, batch_size)
        where_BT = picks[:, None] + np.arange(seq_len)
        start_BT = self._start_of[where_BT]
        is_same_BT = self._start_of[where_BT + 1] == start_BT
        targets_BT = np.where(is_same_BT, self._ids[where_BT + 1], IGNORE)
        return Batch(
            ids=torch.from_numpy(self._ids[where_BT]), targets=torch.from_numpy(targets_BT),
            documents=torch.from_numpy(start_BT), positions=torch.from_numpy(where_BT - start_BT),
        )
