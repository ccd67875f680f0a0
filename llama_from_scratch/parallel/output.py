"""What ranks print, line by line with their numbers, in an order that is the same every time.

Lines of rank 0 appear at once. Lines of the others are held until the function has ended, and then
follow rank by rank. Both streams of a rank, standard output and standard error, are one here. Only
Python's streams are caught; what a library writes to the file descriptor appears without a number.

Notebook 40.
"""

import io
import threading
from collections.abc import Callable


class Said(io.TextIOBase):
    """The standard output of a rank: `tell` is called with whole lines of text."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self._begun, self._lock = tell, "", threading.Lock()

    @property
    def encoding(self) -> str:
        return "utf-8"

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._lock:
            whole, newline, begun = (self._begun + text).rpartition("\n")
            self._begun = begun
            if newline:
                self._tell(whole + newline)
        return len(text)

    def finish(self) -> None:
        """Ends a line that has been begun."""
        if self._begun:
            self.write("\n")


class Transcript:
    """Prints what ranks say."""

    def __init__(self) -> None:
        self._held: dict[int, list[str]] = {}

    def add(self, rank: int, text: str) -> None:
        """Takes whole lines of one rank."""
        if rank == 0:
            _print(rank, text)
        else:
            self._held.setdefault(rank, []).append(text)

    def finish(self) -> None:
        """Prints the lines that are held."""
        for rank in sorted(self._held):
            _print(rank, "".join(self._held[rank]))
        self._held.clear()


def _print(rank: int, text: str) -> None:
    for line in text.removesuffix("\n").split("\n"):
        print(f"[rank {rank}] {line}")
