"""Many texts -> ids on all cores: each process takes a share of the texts, the calling one too.

Encoding is Python, so threads would wait for one another. A process that is forked has the texts
and the tokenizer already, with what it remembers; one that is spawned is sent them. Ids come back
as bytes, four for each.

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

# A process pays when it encodes for longer than it takes to start. A fork takes some hundredths of
# a second, while a fresh Python must import the package and be sent the vocabulary and the texts.
_CHARS_TO_FORK = 400_000
_CHARS_TO_SPAWN = 10_000_000


def encode_batch(encode: Encode, texts: Iterable[str], *, n_workers: int | None) -> list[list[int]]:
    """Returns what `encode` gives of each text, in order, by `n_workers` processes.

    The calling process is the first of them. None takes all cores, but no more than the amount of
    text pays for. Raises what `encode` raises at the first text where it does, and RuntimeError if
    a process ends before its share is done.
    """
    if isinstance(texts, str):
        raise TypeError("a batch is a list of texts, got one str; put it in a list")
    if n_workers is not None and n_workers < 1:
        raise ValueError("n_workers counts the calling process, so it is at least 1, got "
                         f"{n_workers}; None takes all cores")
    texts = list(texts)
    n_workers = min(len(texts), n_workers or _n_that_pay(sum(map(len, texts))))
    if n_workers <= 1:
        return list(map(encode, texts))
    # Dealt out from the longest to the shortest, so that shares are about equal.
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
        """Returns the ids of each text, as `encode` gives them, by `n_workers` processes.

        None is one for each core, but little text stays in this process. Raises what `encode`
        raises, at the first text where it does.
        """
        encode = partial(self.encode, bos=bos, eos=eos, allowed_special=allowed_special,
                         disallowed_special=disallowed_special)
        return encode_batch(encode, texts, n_workers=n_workers)


def _n_that_pay(n_chars: int) -> int:
    if multiprocessing.current_process().daemon:
        return 1  # such a process may not start others
    is_forked = multiprocessing.get_start_method() == "fork"
    return min(_n_cores(), n_chars // (_CHARS_TO_FORK if is_forked else _CHARS_TO_SPAWN))


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _shared_out(encode: Encode, texts: Sequence[str], shares: list[list[int]]) -> list[list[int]]:
    """The ids of each text. A share is the places in `texts` for one process, first this one."""
    workers = []
    try:
        for share in shares[1:]:
            receiver, sender = multiprocessing.Pipe(duplex=False)
            work = (encode, [texts[i] for i in share], sender)
            process = multiprocessing.Process(target=_work, args=work, daemon=True)
            process.start()
            sender.close()  # only the process holds it now, so that the receiver notices its end
            workers.append((process, receiver))
        outcomes = [_encode_each(encode, [texts[i] for i in shares[0]])]
        for process, receiver in workers:
            try:
                encoded, error = receiver.recv()
                outcomes.append(([array("I", ids).tolist() for ids in encoded], error))
            except (EOFError, OSError):
                process.join()
                raise RuntimeError("a process that encodes ended before its work was done, exit "
                                   f"code {process.exitcode}; give n_workers=1, or if it was out "
                                   "of memory a smaller batch, and begin a script with "
                                   '`if __name__ == "__main__":`') from None
    finally:
        for process, receiver in workers:
            process.kill()  # it has done its work, or its work is not needed any more
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
    """Returns the ids of each text, up to the first where `encode` raises, and what it raised."""
    encoded: list[list[int]] = []
    for text in texts:
        try:
            encoded.append(encode(text))
        except Exception as error:  # to be raised where the batch was asked for
            return encoded, error
    return encoded, None


def _work(encode: Encode, texts: Sequence[str], sender: Connection) -> None:
    # Ctrl-C reaches the calling process too, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    encoded, error = _encode_each(encode, texts)
    sender.send(([array("I", ids).tobytes() for ids in encoded], error))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
