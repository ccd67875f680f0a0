"""Writes a command's output safely, whatever the text contains and whenever its reader stops.

Three things can go wrong with a line of output. It may contain control characters from a file, a
model or a path, which would move the cursor or rename the window. They are shown as escapes. It may
contain letters that the terminal's encoding lacks. They are shown as escapes too. And the pipe or
terminal that it goes to may be closed. Then commands that only print end, and commands that make
files continue without output. `guarded` puts one stream that does all this in front of stdout and
stderr, so that the commands need not do it.
"""

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator

# C0 without tab and newline, DEL, C1, and the characters that change the text's line or direction.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
# What a progress bar, such as huggingface_hub's, writes to begin its line again and to leave
# several lines.
_REDRAWING = re.compile("\r(?:\x1b\\[K)?|(?:\n|\x1b\\[A)+\\Z")


class OutputClosed(BrokenPipeError):
    """Raised when stdout is no longer read, as after `| head`."""


def shown(text: str) -> str:
    r"""Returns the text with control characters as escapes: "\x1b]0;title" -> "\\x1b]0;title"."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shown_line(text: str) -> str:
    r"""Returns what `shown` returns, on one line: a newline becomes "\n"."""
    return shown(text).replace("\n", r"\n")


def say(text: str) -> None:
    """Writes a piece of a prompt or of a model's text to stdout at once.

    A terminal gets it as `shown` returns it; a file or a pipe gets the text itself.
    """
    if isinstance(sys.stdout, Terminal) and not sys.stdout.isatty():
        sys.stdout.write_exactly(text)
    else:
        print(text, end="")
    sys.stdout.flush()


class Terminal(io.TextIOBase):
    """A stream that writes to `below` only what can be shown there, and nothing if it is None.

    `is_lasting`: whether to continue without output once `below` fails, for example on a full disk
    or a closed pipe. Otherwise the error is raised, as OutputClosed for a closed pipe.
    `is_redrawn`: whether to let through the control characters with which a progress bar begins.
    """

    def __init__(self, below: io.TextIOBase | None, *, is_lasting: bool, is_redrawn: bool) -> None:
        self._below, self.is_lasting, self._is_redrawn = below, is_lasting, is_redrawn
        self._failure: OSError | None = None

    @property
    def encoding(self) -> str:
        return getattr(self._below, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:
        return "backslashreplace"

    def write(self, text: str) -> int:
        start = _REDRAWING.match(text) if self._is_redrawn else None
        kept = start[0] if start else ""
        self.write_exactly(kept + shown(text[len(kept):]))
        return len(text)

    def write_exactly(self, text: str) -> None:
        """Writes control characters as they are."""
        text = text.encode(self.encoding, self.errors).decode(self.encoding)
        self._try(lambda below: below.write(text))

    def flush(self) -> None:
        self._try(lambda below: below.flush())

    def isatty(self) -> bool:
        return self._below is not None and self._below.isatty()

    def fileno(self) -> int:
        if self._below is None:
            raise io.UnsupportedOperation("this stream is closed")
        return self._below.fileno()

    def writable(self) -> bool:
        return True

    def _try(self, act: Callable[[io.TextIOBase], object]) -> None:
        try:
            if self._below is not None:
                act(self._below)
        except OSError as error:
            # Otherwise Python would try to write the rest again when it exits.
            with contextlib.suppress(OSError):
                _redirect_to_nowhere(self._below.fileno())
            is_closed = isinstance(error, BrokenPipeError)
            self._failure = OutputClosed(*error.args) if is_closed else error
            self._below = None
        if self._failure is not None and not self.is_lasting:
            raise self._failure  # each time, because argparse drops the first one


@contextlib.contextmanager
def guarded() -> Iterator[Terminal]:
    """Puts a Terminal in front of stdout and stderr during the block, and yields that of stdout.

    Closed standard streams are opened on `os.devnull`. Otherwise a file that is opened later would
    take one of their numbers and receive what is printed.
    """
    before = sys.stdin, sys.stdout, sys.stderr
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number
    output = Terminal(before[1], is_lasting=False, is_redrawn=False)
    sys.stdin = io.StringIO() if before[0] is None else before[0]
    sys.stdout, sys.stderr = output, Terminal(before[2], is_lasting=True, is_redrawn=True)
    try:
        yield output
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def _redirect_to_nowhere(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
