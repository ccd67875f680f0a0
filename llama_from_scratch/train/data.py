"""From files to batches: documents between special tokens, joined to one stream, cut into windows.

A window may hold the end of one document and the beginning of the next. Document numbers and
restarting positions keep them apart: nothing is padded, and no token attends to another document.
The windows of a batch depend only on the seed and the step, so a run resumed at step k gets the
batches of the uninterrupted run.

Notebook 17. Document mask: Llama 3, arXiv:2407.21783, section 3.2.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.foreign import opened, plain
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer

IGNORE = -100
"""The target of a token whose successor belongs to another document. It adds no loss."""


def read_documents(
    path: str | Path, *, separator: str | None = None, suffixes: Collection[str] | None = None,
    on_skip: Callable[[Path, str], object] | None = None,
) -> list[str]:
    """Returns the documents in a text file, or in all files below a folder in order of their paths.

    A file is one document. With a `separator`, such as "\\n\\n" for blank lines, each piece between
    separators is one document. Line ends become "\\n". White space around a document is removed,
    and empty documents are left out. `suffixes`, such as {".py", ".md"}, chooses files of a folder.
    Hidden files and folders (".git") are never read. A file that is not UTF-8 raises ValueError
    with the byte; with `on_skip(file, reason)`, that is called instead and the file is left out.
    Raises ValueError if no text remains.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"training reads a text file or a folder of them; {path} is not there. "
                         "Check the path")
    files = list(_files(path, suffixes)) if path.is_dir() else [path]
    if not files:
        wanted = f" ending in {' or '.join(sorted(suffixes))}" if suffixes else ""
        raise ValueError(f"training needs text files; the folder {path} has no files{wanted} below "
                         "it. Choose another folder, or other suffixes")
    documents = []
    for file in files:
        try:
            text = read_text(file)
        except ValueError as error:
            if on_skip is None:
                raise
            on_skip(file, str(error))
            continue
        documents += [part.strip() for part in (text.split(separator) if separator else [text])]
    documents = [document for document in documents if document]
    if not documents:
        raise ValueError(f"training needs text, and {path} contains only white space. "
                         "Choose another file or folder")
    return documents


def _files(folder: Path, suffixes: Collection[str] | None) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and (suffixes is None or Path(name).suffix in suffixes):
                yield Path(root, name)


_PIPES_OF_OURS = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
"""Paths of pipes that this process was started with, such as `cat a.txt |` or `<(cat a.txt)`. These
pipes end when their writer does. Another pipe may wait forever for a writer."""


def read_text(file: str | Path) -> str:
    """Returns the text of one file, with "\\n" for every line end and without a byte-order mark.

    Raises ValueError naming the first byte that is not UTF-8.
    """
    if str(file).startswith(_PIPES_OF_OURS):
        data = Path(file).read_bytes()
    else:
        with opened(file, need="this needs a text file", may_be_empty=True) as source:
            data = source.read()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"text must be UTF-8, and in {plain(file)} byte {error.start} is "
                         f"0x{data[error.start]:02x} ({error.reason}). "
                         "Convert the file, or leave it out") from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def split_validation(documents: Sequence[str], *, fraction: float) -> tuple[list[str], list[str]]:
    """Returns the documents to train on and the documents to validate on.

    The latter are the last `fraction` of the documents, at least one. A single document is cut in
    two, at the end of a line if there is one nearby.
    Raises ValueError if a part is empty.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction for validation must be between 0 and 1; got {fraction}")
    if len(documents) > 1:
        n_kept = min(max(len(documents) - round(len(documents) * fraction), 1), len(documents) - 1)
        return list(documents[:n_kept]), list(documents[n_kept:])
    text = "".join(documents)
    cut = len(text) - max(round(len(text) * fraction), 1)
    line_end = text.find("\n", cut, cut + 1000)
    cut = cut if line_end < 0 else line_end + 1
    if not text[:cut].strip() or not text[cut:].strip():
        raise ValueError("training and validation both need text; got one document of "
                         f"{len(text)} characters, and one part of it would be empty. Give more "
                         "text, or train without validation")
    return [text[:cut]], [text[cut:]]


@record
class Batch:
    """B windows of T tokens; the target of each token is the token that follows it.

    `targets` are `IGNORE` at the end of a document. `documents` numbers the documents of a window
    from 0. `positions` counts from 0 at each document's first token in the window.
    """

    ids: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]
    documents: Int[Tensor, "B T"]
    positions: Int[Tensor, "B T"]

    @property
    def n_targets(self) -> int:
        """The number of targets that are not `IGNORE`."""
        return int((self.targets != IGNORE).sum())

    def logits(self, model: Llama) -> Float[Tensor, "B T V"]:
        """Returns the model's logits of the next token at every position."""
        return model(self.ids, positions=self.positions, documents=self.documents)

    def hidden(self, model: Llama) -> Float[Tensor, "B T D"]:
        """Returns what the model's output layer turns into these logits."""
        return model.hidden(self.ids, positions=self.positions, documents=self.documents)

    def to(self, device: torch.device | str) -> "Batch":
        return self._each(lambda x: x.to(device))

    def split(self, n_rows: int) -> list["Batch"]:
        """Returns micro-batches of `n_rows` rows. The last may have fewer."""
        return [self._each(lambda x, i=i: x[i : i + n_rows])
                for i in range(0, len(self.ids), n_rows)]

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(ids=change(self.ids), targets=change(self.targets),
                     documents=change(self.documents), positions=change(self.positions))


class Packed:
    """Documents as one stream of tokens, each between begin-of-text and end-of-text.

    `n_documents`, `n_tokens` (special tokens included) and `n_bytes` (of UTF-8 text) are its sizes.
    Equal streams have equal `digest`s, and different streams have different digests. A token takes
    two bytes of memory if the vocabulary has at most 65,536 tokens, otherwise four.
    Raises ValueError if there is no text at all, or if the tokenizer has no begin-of-text or no
    end-of-text.
    """

    def __init__(self, documents: Iterable[str], tokenizer: Tokenizer) -> None:
        dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
        parts = [np.array(tokenizer.encode(document, bos=True, eos=True), dtype)
                 for document in documents]
        if not any(len(part) > 2 for part in parts):
            raise ValueError(f"a stream needs text; got {len(parts)} documents, all of them empty. "
                             "Give a document with text")
        self.tokenizer = tokenizer
        self._ids = np.concatenate(parts)
        self._starts = np.cumsum([0] + [len(part) for part in parts[:-1]])
        special = set(tokenizer.special_ids.values())
        self._bytes_of = torch.tensor([0 if i in special else len(tokenizer.decode_bytes([i]))
                                       for i in range(tokenizer.vocab_size)])
        self.n_documents, self.n_tokens = len(parts), len(self._ids)
        self.n_bytes = int(np.bincount(self._ids, minlength=tokenizer.vocab_size)
                           @ self._bytes_of.numpy())
        self.digest = hashlib.sha256(self._ids.tobytes() + self._starts.tobytes()).hexdigest()

    def batch(self, step: int, *, batch_size: int, seq_len: int, seed: int) -> Batch:
        """Returns the batch of a step, which depends only on these numbers and the stream.

        An epoch visits each of its windows once, in an order drawn from the seed and the epoch's
        number. A batch may hold the end of one epoch and the beginning of the next. The stream is
        rarely a whole number of windows. Each epoch leaves out a different remainder of less than a
        window, part of it at the beginning and part at the end.
        """
        n_windows, n_spare = divmod(self._n_predicted(seq_len), seq_len)
        epochs, places = np.divmod(np.arange(step * batch_size, (step + 1) * batch_size), n_windows)
        rows = []
        for epoch in range(epochs[0], epochs[-1] + 1):
            random = np.random.default_rng([seed, epoch])
            begin = random.integers(n_spare + 1)
            rows.append(begin + seq_len * random.permutation(n_windows)[places[epochs == epoch]])
        return self._windows(np.concatenate(rows), seq_len)

    def in_order(self, *, batch_size: int, seq_len: int) -> Iterator[Batch]:
        """Yields all windows from the first to the last, which predict each token once.

        The remainder at the end is a last batch of one shorter window.
        """
        n_windows, n_spare = divmod(self._n_predicted(seq_len), seq_len)
        for first in range(0, n_windows, batch_size):
            rows = np.arange(first, min(first + batch_size, n_windows)) * seq_len
            yield self._windows(rows, seq_len)
        if n_spare:
            yield self._windows(np.array([n_windows * seq_len]), n_spare)

    def n_bytes_in(self, targets: Int[Tensor, "B T"]) -> int:
        """Returns how many bytes of text the targets have; special and ignored ones have none."""
        return int(self._bytes_of[targets[targets != IGNORE].cpu()].sum())

    def _n_predicted(self, seq_len: int) -> int:
        """Returns how many tokens have a successor. Raises ValueError if they fill no window."""
        if seq_len < 2:
            raise ValueError("a window holds at least 2 tokens, so seq_len must be at least 2; "
                             f"got {seq_len}")
        if self.n_tokens - 1 < seq_len:
            raise ValueError(f"a window of seq_len={seq_len} needs {seq_len + 1} tokens, "
                             f"and this text has {self.n_tokens}. "
                             "Give more text or a smaller seq_len")
        return self.n_tokens - 1

    def _windows(self, first: np.ndarray, seq_len: int) -> Batch:
        where_BT = first[:, None] + np.arange(seq_len)
        document_BT = np.searchsorted(self._starts, where_BT, side="right") - 1
        successor_BT = np.searchsorted(self._starts, where_BT + 1, side="right") - 1
        begin_BT = np.maximum(self._starts[document_BT], first[:, None])
        targets_BT = np.where(successor_BT == document_BT,
                              self._ids[where_BT + 1].astype(np.int64), IGNORE)
        return Batch(
            ids=torch.from_numpy(self._ids[where_BT].astype(np.int64)),
            targets=torch.from_numpy(targets_BT),
            documents=torch.from_numpy(document_BT - document_BT[:, :1]),
            positions=torch.from_numpy(where_BT - begin_BT),
        )
