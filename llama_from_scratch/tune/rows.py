"""Dialogs as rows of ids, and which of the ids are learned: what the assistant says, and its end.

Everything else in a row is only read. A token that is not learned has no target, so it adds no loss
and its logits get no gradient. Rows have one dialog each, with padding at the end, or several
dialogs that do not see each other. Both have the same loss, because it is one sum divided by one
count.

Notebook 50. Source: Llama 2, arXiv:2307.09288, section 3.1.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from llama_from_scratch.config import record
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.chat_format import ChatFormat, ChatTemplate
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.train.data import IGNORE, Batch
from llama_from_scratch.tune.dialogs import Dialog

Row = TypeVar("Row")


@record
class TokenExample:
    """The ids of one dialog or text, and for each id whether it is learned.

    The first id is never learned, because nothing comes before it.
    """

    ids: tuple[int, ...]
    is_learned: tuple[bool, ...]

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.is_learned):
            raise ValueError("an example says of each id whether it is learned; got "
                             f"{len(self.ids)} ids and {len(self.is_learned)} answers")

    @property
    def n_learned(self) -> int:
        return sum(self.is_learned[1:])


def example_of(
    dialog: Dialog, tokenizer: AnyTokenizer, format: ChatFormat | ChatTemplate
) -> TokenExample:
    """Returns the ids of a finished dialog; learned is what the assistant says, with its end.

    Raises ValueError if the format does not allow the dialog, if an answer is empty, if nothing is
    learned, or if the format writes earlier messages differently once later ones are there.
    """
    for i in dialog.learned:
        message = dialog.messages[i]
        if not message.content.strip() and not message.tool_calls:
            raise ValueError(f"an answer has words or calls; message {i} of the dialog is empty. "
                             "Leave the dialog out")
    if not dialog.learned:
        raise ValueError("a dialog to learn from has a message of the assistant; got the roles "
                         f"{', '.join(message.role for message in dialog.messages)}. Add an answer")
    ids = format.encode(dialog.messages, tokenizer, is_answered=True, tools=dialog.tools)
    stops, is_learned = format.stop_ids(tokenizer), [False] * len(ids)
    for i in dialog.learned:
        before = format.encode(dialog.messages[:i], tokenizer, tools=dialog.tools)
        begin = len(before)
        if ids[:begin] != before:
            raise ValueError(f"the format of {format.name} writes the messages before number {i} "
                             "differently once it is answered, so its answer cannot be marked. "
                             "Choose a format of tokenizer.chat_format.FORMATS")
        end = next((at + 1 for at in range(begin, len(ids)) if ids[at] in stops), len(ids))
        is_learned[begin:end] = [True] * (end - begin)
    return TokenExample(ids=tuple(ids), is_learned=tuple(is_learned))


def examples_of(
    dialogs: Iterable[Dialog], tokenizer: AnyTokenizer, format: ChatFormat | ChatTemplate, *,
    max_tokens: int, is_cut: bool = False,
) -> tuple[list[TokenExample], int]:
    """Returns the dialogs as examples of at most `max_tokens` ids, and how many had to be cut.

    With `is_cut`, a dialog that is too long loses its last messages, down to an answer. Otherwise
    it is refused with its number. Raises ValueError for it, for a dialog whose first answer does
    not fit, and as `example_of` does.
    """
    found, n_cut = [], 0
    for number, dialog in enumerate(dialogs):
        example = example_of(dialog, tokenizer, format)
        if len(example.ids) > max_tokens:
            n_ids = len(example.ids)
            shorter = _shorter(dialog, tokenizer, format, max_tokens) if is_cut else None
            if shorter is None:
                cure = "Its first answer alone is too long: leave it out" if is_cut else (
                    "Shorten it, allow more tokens, or let long dialogs lose their last messages "
                    "with is_cut=True")
                raise ValueError(f"a row holds {max_tokens} tokens, and dialog {number} has "
                                 f"{n_ids}. {cure}")
            example, n_cut = shorter, n_cut + 1
        found.append(example)
    if not found:
        raise ValueError("learning needs dialogs; got none")
    return found, n_cut


def _shorter(
    dialog: Dialog, tokenizer: AnyTokenizer, format: ChatFormat | ChatTemplate, max_tokens: int
) -> TokenExample | None:
    """Returns the longest beginning of the dialog that ends with an answer and fits, or None."""
    for last in reversed(dialog.learned):
        if not dialog.messages[last].ends_turn:
            continue
        kept = Dialog(messages=dialog.messages[: last + 1], tools=dialog.tools,
                      unlearned=tuple(i for i in dialog.unlearned if i <= last))
        example = example_of(kept, tokenizer, format)
        if len(example.ids) <= max_tokens:
            return example
    return None


def text_example(
    text: str, tokenizer: AnyTokenizer, *, max_tokens: int, draw: Random
) -> TokenExample:
    """Returns a text between its special tokens, of which all is learned.

    Of a long text it is a window of `max_tokens` that begins anywhere, as in the earlier training.
    """
    ids = tokenizer.encode(text, bos=True, eos=True)
    begin = draw.randrange(max(len(ids) - max_tokens, 0) + 1)
    ids = ids[begin : begin + max_tokens]
    return TokenExample(ids=tuple(ids), is_learned=(False, *[True] * (len(ids) - 1)))


class Rows:
    """Examples as data for `train`: the batch of a step depends only on the seed and the step.

    Without `is_packed`, each row has one example, rows of similar length share a batch, and padding
    at the end fills them up. With it, a row has as many examples as fit into it. An epoch uses
    every example once, except those that do not fill its last batch.
    Equal rows have equal `digest`s.
    """

    def __init__(
        self, examples: Sequence[TokenExample], tokenizer: AnyTokenizer, *, is_packed: bool = False
    ) -> None:
        if not any(example.n_learned for example in examples):
            raise ValueError(f"rows need a token to learn; got {len(examples)} examples without "
                             "any. Give dialogs with answers")
        self.examples, self.tokenizer, self.is_packed = list(examples), tokenizer, is_packed
        self.n_documents = len(examples)
        self.n_tokens = sum(len(example.ids) for example in examples)
        digest = hashlib.sha256(str(is_packed).encode())
        for example in examples:
            digest.update(str((example.ids, example.is_learned)).encode())
        self.digest = digest.hexdigest()
        self._epochs: dict[tuple[int, int, int], list[list[list[int]]]] = {}

    def batch(self, step: int, *, batch_size: int, seq_len: int, seed: int) -> Batch:
        """Returns the batch of a step. Raises ValueError if an example is longer than a row."""
        epoch = 0
        while step >= len(batches := self._epoch(epoch, batch_size, seq_len, seed)):
            step, epoch = step - len(batches), epoch + 1
        return self._batch(batches[step])

    def in_order(self, *, batch_size: int, seq_len: int) -> Iterator[Batch]:
        """Yields all examples once, in their order, one in each row."""
        self._check_lengths(seq_len)
        for first in range(0, len(self.examples), batch_size):
            numbers = range(first, min(first + batch_size, len(self.examples)))
            yield self._batch([[number] for number in numbers])

    def n_bytes_in(self, targets: Int[Tensor, "B T"]) -> int:
        """Returns how many bytes of text the targets have; special and ignored ones have none."""
        special = set(self.tokenizer.special_ids.values())
        ids = [i for i in targets[targets != IGNORE].tolist() if i not in special]
        return len(self.tokenizer.decode_bytes(ids)) if ids else 0

    def _epoch(self, epoch: int, batch_size: int, seq_len: int, seed: int) -> list[list[list[int]]]:
        """Returns the batches of an epoch: for each row the numbers of its examples."""
        key = (batch_size, seq_len, seed)
        epochs = self._epochs.setdefault(key, [])
        if not epochs:
            self._check_lengths(seq_len)
        while len(epochs) <= epoch:
            random = np.random.default_rng([seed, len(epochs)])
            order = random.permutation(len(self.examples)).tolist()
            rows = self._packed(order, seq_len) if self.is_packed else [[i] for i in order]
            epochs.append(of_similar_length(
                rows, lambda row: sum(len(self.examples[i].ids) for i in row),
                batch_size=batch_size, random=random))
        return epochs[epoch]

    def _check_lengths(self, seq_len: int) -> None:
        longest = max(range(len(self.examples)), key=lambda i: len(self.examples[i].ids))
        if (n_ids := len(self.examples[longest].ids)) > seq_len + 1:
            raise ValueError(f"a row of seq_len={seq_len} holds {seq_len + 1} tokens, and example "
                             f"{longest} has {n_ids}. Give a larger seq_len, or cut the dialogs")

    def _packed(self, order: Sequence[int], seq_len: int) -> list[list[int]]:
        """Returns rows of examples, each of which goes to the first open row with room for it."""
        rows: list[list[int]] = []
        room: list[int] = []
        n_open = 32  # looking through all rows would take time for nothing
        for i in order:
            n_ids = len(self.examples[i].ids) - 1  # the last id is only a target
            for row in range(max(0, len(rows) - n_open), len(rows)):
                if n_ids <= room[row]:
                    rows[row].append(i)
                    room[row] -= n_ids
                    break
            else:
                rows.append([i])
                room.append(seq_len - n_ids)
        return rows

    def _batch(self, rows: Sequence[Sequence[int]]) -> Batch:
        return padded([[self.examples[i] for i in row] for row in rows])


def of_similar_length(
    rows: Sequence[Row], length: Callable[[Row], int], *, batch_size: int,
    random: np.random.Generator,
) -> list[list[Row]]:
    """Returns full batches of rows whose lengths are similar, in an order of their own.

    If there are fewer rows than a batch has, all of them are one batch.
    """
    made, n_together = [], 16 * batch_size
    for first in range(0, len(rows), n_together):
        alike = sorted(rows[first : first + n_together], key=length)
        made += [alike[i : i + batch_size] for i in range(0, len(alike), batch_size)]
    full = [rows_of for rows_of in made if len(rows_of) == batch_size] or made[:1]
    return [full[i] for i in random.permutation(len(full))]


def by_length(lengths: Sequence[int], *, batch_size: int) -> Iterator[list[int]]:
    """Yields the numbers of all rows in batches, from the shortest to the longest row."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    for first in range(0, len(order), batch_size):
        yield order[first : first + batch_size]


def padded(rows: Sequence[Sequence[TokenExample]]) -> Batch:
    """Returns a batch of rows with one or several examples each, and padding at their ends."""
    width = max(sum(len(example.ids) - 1 for example in row) for row in rows)
    ids_BT = torch.zeros(len(rows), width, dtype=torch.long)
    targets_BT = torch.full((len(rows), width), IGNORE)
    documents_BT, positions_BT = torch.zeros_like(ids_BT), torch.zeros_like(ids_BT)
    for b, row in enumerate(rows):
        at = 0
        for document, example in enumerate(row):
            n = len(example.ids) - 1
            ids_BT[b, at : at + n] = torch.tensor(example.ids[:-1])
            targets = torch.tensor(example.ids[1:])
            targets[~torch.tensor(example.is_learned[1:])] = IGNORE
            targets_BT[b, at : at + n] = targets
            documents_BT[b, at : at + n] = document
            positions_BT[b, at : at + n] = torch.arange(n)
            at += n
        # Padding continues the last document. No token looks ahead, so none sees it.
        documents_BT[b, at:] = max(len(row) - 1, 0)
        positions_BT[b, at:] = torch.arange(width - at) + int(positions_BT[b, at - 1]) + 1
    return Batch(ids=ids_BT, targets=targets_BT, documents=documents_BT, positions=positions_BT)


def with_replay(
    examples: Sequence[TokenExample], texts: Sequence[str], tokenizer: AnyTokenizer, *,
    share: float, max_tokens: int, seed: int = 0,
) -> list[TokenExample]:
    """Returns the examples and, among them, texts of the earlier training: a `share` of all rows.

    Without them a model forgets what it could do before. Raises ValueError unless 0 < share < 1, or
    if there is no text.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share of replayed texts is between 0 and 1; got {share}. Leave the "
                         "texts out to replay nothing")
    if not texts:
        raise ValueError("replay needs texts of the earlier training; got none")
    n = round(len(examples) * share / (1 - share))
    draw = Random(seed)
    return [*examples, *(text_example(draw.choice(texts), tokenizer, max_tokens=max_tokens,
                                       draw=draw)
                         for _ in range(n))]


def learned_nats(model: Llama, batch: Batch, *, is_bf16: bool = False) -> Float[Tensor, ""]:
    """Returns the sum of -log p(target) in nats, as `train.loss.sum_of_nats` does."""
    logits_NV, targets_N = at_targets(model, batch, is_bf16=is_bf16)
    return F.cross_entropy(logits_NV, targets_N, reduction="sum")


def at_targets(
    model: Llama, batch: Batch, *, is_bf16: bool
) -> tuple[Float[Tensor, "N V"], Int[Tensor, "N"]]:
    """Returns the logits where there is a target, row by row, and the targets.

    In a dialog that is often a third of the places. The logits are in fp32, or in float64 for a
    model in float64. `is_bf16`: as in `train.loss.sum_of_nats`.
    """
    with torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=is_bf16):
        is_target_BT = batch.targets != IGNORE
        logits_NV = model.output(batch.hidden(model)[is_target_BT])
    logits_NV = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    return logits_NV, batch.targets[is_target_BT]
