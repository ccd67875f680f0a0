"""Pairs as rows of ids: the chosen answer and the rejected one next to each other in every batch.

A batch of B pairs has 2 B rows, in which only the answers and their ends are targets. A loss on
pairs is one sum divided by one count, the number of pairs, so a batch may be divided in any way
that keeps the two rows of a pair together.

Notebooks 52 and 53.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.tokenizer.chat_format import ChatFormat, ChatTemplate
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.train.data import IGNORE, Batch
from llama_from_scratch.tune.preferences import Preference
from llama_from_scratch.tune.rows import TokenExample, example_of, of_similar_length, padded


@record
class PairExample:
    """The two answers of a pair as examples. `margin`: as in `Preference`."""

    chosen: TokenExample
    rejected: TokenExample
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.chosen.ids == self.rejected.ids:
            raise ValueError("the two answers of a pair must differ; this format writes both as "
                             f"the same {len(self.chosen.ids)} ids. Leave the pair out")

    @property
    def n_ids(self) -> int:
        """The number of ids in the longer row."""
        return max(len(self.chosen.ids), len(self.rejected.ids))


def pair_examples_of(
    pairs: Sequence[Preference], tokenizer: AnyTokenizer, format: ChatFormat | ChatTemplate, *,
    max_tokens: int,
) -> list[PairExample]:
    """Returns the pairs as examples of at most `max_tokens` ids.

    Raises ValueError if there is no pair, and, with the number of the pair, if it is too long, if
    an answer is empty, or if the format does not allow a dialog.
    """
    if not pairs:
        raise ValueError("learning from preferences needs pairs; got none")
    found = []
    for number, pair in enumerate(pairs):
        try:
            chosen, rejected = (example_of(dialog, tokenizer, format) for dialog in pair.dialogs)
            example = PairExample(chosen=chosen, rejected=rejected, margin=float(pair.margin))
        except ValueError as error:
            raise ValueError(f"pair {number}: {error}") from error
        if example.n_ids > max_tokens:
            raise ValueError(f"a row holds {max_tokens} tokens, and pair {number} has "
                             f"{example.n_ids}. Shorten it, leave it out, or allow more tokens")
        found.append(example)
    return found


@record
class PairBatch:
    """B pairs as 2 B rows: the row of each chosen answer, followed by the row of its rejected one.

    `numbers`: of each pair among all pairs of the data. `margins`: as in `Preference`. `n_chosen`:
    the mean number of learned tokens in a chosen answer, of the whole batch also in its parts.
    """

    rows: Batch
    numbers: Int[Tensor, "B"]
    margins: Float[Tensor, "B"]
    n_chosen: float

    @property
    def ids(self) -> Int[Tensor, "B 2 T"]:
        """The ids of the chosen and the rejected row of each pair."""
        return self.rows.ids.unflatten(0, (-1, 2))

    @property
    def n_targets(self) -> int:
        """The number of pairs, by which the sum of a loss is divided."""
        return len(self.numbers)

    def to(self, device: torch.device | str) -> "PairBatch":
        return PairBatch(rows=self.rows.to(device), numbers=self.numbers.to(device),
                         margins=self.margins.to(device), n_chosen=self.n_chosen)

    def split(self, n_rows: int) -> list["PairBatch"]:
        """Returns micro-batches of `n_rows` pairs. The last may have fewer."""
        return [PairBatch(rows=rows, numbers=numbers, margins=margins, n_chosen=self.n_chosen)
                for rows, numbers, margins in zip(
                    self.rows.split(2 * n_rows), self.numbers.split(n_rows),
                    self.margins.split(n_rows), strict=True)]


class PairRows:
    """Pairs as data for `train`: the batch of a step depends only on the seed and the step.

    Pairs of similar length share a batch. An epoch uses every pair once, except those that do not
    fill its last batch. Equal pairs have equal `digest`s.
    """

    def __init__(self, examples: Sequence[PairExample], tokenizer: AnyTokenizer) -> None:
        if not examples:
            raise ValueError("rows of pairs need at least one pair; got none")
        self.examples, self.tokenizer = list(examples), tokenizer
        self.n_documents = 2 * len(examples)
        self.n_tokens = sum(len(pair.chosen.ids) + len(pair.rejected.ids) for pair in examples)
        self._margins = torch.tensor([pair.margin for pair in examples])
        digest = hashlib.sha256()
        for pair in examples:
            digest.update(str((pair.chosen.ids, pair.chosen.is_learned, pair.rejected.ids,
                               pair.rejected.is_learned, pair.margin)).encode())
        self.digest = digest.hexdigest()
        self._epochs: dict[tuple[int, int, int, int], list[list[int]]] = {}

    def batch(self, step: int, *, batch_size: int, seq_len: int, seed: int) -> PairBatch:
        """Returns the batch of a step. Raises ValueError if a pair is longer than a row."""
        n_batches = max(len(self.examples) // batch_size, 1)
        epoch, place = divmod(step, n_batches)
        key = (epoch, batch_size, seq_len, seed)
        if key not in self._epochs:
            self._check_lengths(seq_len)
            random = np.random.default_rng([seed, epoch])
            self._epochs = {key: of_similar_length(
                random.permutation(len(self.examples)).tolist(),
                lambda i: self.examples[i].n_ids, batch_size=batch_size, random=random)}
        return self.of(self._epochs[key][place])

    def of(self, numbers: Sequence[int]) -> PairBatch:
        """Returns the batch of the pairs with these numbers."""
        pairs = [self.examples[i] for i in numbers]
        rows = padded([[row] for pair in pairs for row in (pair.chosen, pair.rejected)])
        return PairBatch(rows=rows, numbers=torch.tensor(numbers),
                         margins=self._margins[torch.tensor(numbers)],
                         n_chosen=float((rows.targets[::2] != IGNORE).sum()) / len(pairs))

    def _check_lengths(self, seq_len: int) -> None:
        longest = max(range(len(self.examples)), key=lambda i: self.examples[i].n_ids)
        if (n_ids := self.examples[longest].n_ids) > seq_len + 1:
            raise ValueError(f"a row of seq_len={seq_len} holds {seq_len + 1} tokens, and pair "
                             f"{longest} has {n_ids}. Give a larger seq_len, or leave it out")
