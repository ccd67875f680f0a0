"""Many texts -> ids on all cores: each process, including the caller, encodes a share of the texts.

Encoding is Python code, so threads would wait for one another. A forked process already has the
texts and the tokenizer with its cached words. A spawned process receives copies of both. Ids are
sent back as bytes, four per id.

Notebook 10. All generations.
"""

import multiprocessing
import os
import signal
import sys
import threading
from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait

from llama_from_scratch.tokenizer.special_tokens import SpecialNames

Encode = Callable[[str], list[int]]

# Another process helps only if it encodes for longer than it takes to start. A fork takes a few
# hundredths of a second. A spawned Python must import the package and receive the vocabulary and
# the texts.
_CHARS_TO_FORK = 400_000
_CHARS_TO_SPAWN = 10_000_000


def encode_batch(encode: Encode, texts: Iterable[str], *, n_workers: int | None) -> list[list[int]]:
    """Returns `encode(text)` of each text, in order, computed by `n_workers` processes.

    The calling process is one of them. None uses all cores, but fewer processes for little text.
    Raises the first error that `encode` raises, in the order of the texts, and RuntimeError if a
    process ends before its share is done.
    """
    if isinstance(texts, str):
        raise TypeError("a batch must be a list of texts; got one str. Put it in a list")
    if n_workers is not None and n_workers < 1:
        raise ValueError("n_workers includes the calling process, so it must be at least 1; got "
                         f"{n_workers}. Leave it out to use all cores")
    texts = list(texts)
    n_workers = min(len(texts), n_workers or _n_that_pay(sum(map(len, texts))))
    if n_workers <= 1:
        return list(map(encode, texts))
    # Texts are dealt out from the longest to the shortest, so that the shares are about equal.
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]), reverse=True)
    return _shared_out(encode, texts, [sorted(order[k::n_workers]) for k in range(n_workers)])


class EncodesBatches:
    """A tokenizer's `encode` for many texts at once."""

    encode: Callable[..., list[int]]

    def encode_batch(
        self, texts: Iterable[str], *, n_workers: int | None = None, bos: bool = False,
        eos: bool = False, allowed_special: SpecialNames = frozenset(),
        disallowed_special: SpecialNames = frozenset(),
    ) -> list[list[int]]:
        """Returns the ids of each text as `encode` gives them, computed by `n_workers` processes.

        None means one process per core, or fewer for little text. Raises the first error that
        `encode` raises, in the order of the texts.
        """
        encode = partial(self.encode, bos=bos, eos=eos, allowed_special=allowed_special,
                         disallowed_special=disallowed_special)
        return encode_batch(encode, texts, n_workers=n_workers)


def _n_that_pay(n_chars: int) -> int:
    if multiprocessing.current_process().daemon:
        return 1  # a daemon process cannot start others
    is_forked = multiprocessing.get_start_method() == "fork"
    return min(_n_cores(), n_chars // (_CHARS_TO_FORK if is_forked else _CHARS_TO_SPAWN))


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _shared_out(encode: Encode, texts: Sequence[str], shares: list[list[int]]) -> list[list[int]]:
    """Returns the ids of each text. `shares`: the indices of the texts per process, ours first."""
    workers = []
    try:
        for share in shares[1:]:
            receiver, sender = multiprocessing.Pipe(duplex=False)
            work = (encode, [texts[i] for i in share], sender)
            process = multiprocessing.Process(target=_work, args=work, daemon=True)
            process.start()
            sender.close()  # only the process has it open now, so the receiver notices if it ends
            workers.append((process, receiver))
        outcomes = [_encode_each(encode, [texts[i] for i in shares[0]])]
        for process, receiver in workers:
            try:
                encoded, error = receiver.recv()
                outcomes.append(([array("I", ids).tolist() for ids in encoded], error))
            except (EOFError, OSError):
                process.join()
                raise RuntimeError("every process must encode its whole share of the batch; got "
                                   f"exit code {process.exitcode} from one before that. Give "
                                   "n_workers=1, or a smaller batch if memory ran out, and begin "
                                   'a script with `if __name__ == "__main__":`') from None
    finally:
        for process, receiver in workers:
            process.kill()  # its work is done, or is no longer needed
            process.join()
            receiver.close()
    failed: list[tuple[int, Exception]] = []
    ids_of: dict[int, list[int]] = {}
    for share, (encoded, error) in zip(shares, outcomes, strict=True):
        if error:
            failed.append((share[len(encoded)], error))
        else:
            ids_of.update(zip(share, encoded, strict=True))
    if failed:
        raise min(failed, key=lambda found: found[0])[1]
    return [ids_of[place] for place in range(len(texts))]


def _encode_each(encode: Encode, texts: Iterable[str]) -> tuple[list[list[int]], Exception | None]:
    """Returns the ids of the texts before the first error that `encode` raises, and that error."""
    encoded: list[list[int]] = []
    for text in texts:
        try:
            encoded.append(encode(text))
        except Exception as error:  # raised again in the calling process
            return encoded, error
    return encoded, None


def _work(encode: Encode, texts: Sequence[str], sender: Connection) -> None:
    # Ctrl-C also reaches the calling process, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    encoded, error = _encode_each(encode, texts)
    sender.send(([array("I", ids).tobytes() for ids in encoded], error))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
