"""A program in a pseudo-terminal, with a user who types and pastes."""

import os
import pty
import select
import signal
import termios
from contextlib import contextmanager

PATIENCE_S = 120


class Screen:
    """What a test does at the terminal: `wait_for` text on it, `type` bytes, and `end`."""

    def __init__(self, process: int, number: int) -> None:
        self.process, self.number, self.shown = process, number, b""
        self._status = None

    def wait_for(self, text: str) -> str:
        """Returns everything shown up to this text, and does not look at it again."""
        wanted = text.encode()
        while wanted not in self.shown:
            assert self._read(), f"{text!r} never came; shown: {self.shown.decode()!r}"
        before, _, self.shown = self.shown.partition(wanted)
        return (before + wanted).decode(errors="replace")

    def wait_for_more(self) -> None:
        """Waits until something is shown after what was waited for."""
        while not self.shown:
            assert self._read(), "the program has ended"

    def interrupt_until(self, text: str) -> str:
        """Presses Ctrl-C until this text is shown, and returns what `wait_for` does."""
        self._interrupt(until=lambda: text.encode() in self.shown)
        return self.wait_for(text)

    def interrupt_to_the_end(self) -> tuple[int, str]:
        """Presses Ctrl-C until the program ends, and returns what `end` does."""
        self._interrupt(until=lambda: False)
        return self.end()

    def _interrupt(self, *, until) -> None:
        """Presses Ctrl-C, and again whenever nothing is shown for a long time.

        CPython's readline misses a signal that arrives between its prompt and its wait for a key.
        """
        for _ in range(5):
            self.type("\x03")
            while not until() and select.select([self.number], [], [], PATIENCE_S / 4)[0]:
                if not self._read():
                    return
            if until():
                return

    def type(self, text: str | bytes) -> None:
        """Types or pastes, and reads at the same time, as a terminal does."""
        data = text.encode() if isinstance(text, str) else text
        while data:
            readable, writable, _ = select.select([self.number], [self.number], [], PATIENCE_S)
            assert readable or writable, "the program takes no input"
            if readable:
                self._read()
            if writable:
                data = data[os.write(self.number, data[:512]):]

    def end(self) -> tuple[int, str]:
        """Returns the program's exit status and the rest of what it has shown."""
        while self._read():
            pass
        if self._status is None:
            _, status = os.waitpid(self.process, 0)
            self._status = os.waitstatus_to_exitcode(status)
        return self._status, self.shown.decode(errors="replace")

    def _read(self) -> bool:
        readable, _, _ = select.select([self.number], [], [], PATIENCE_S)
        assert readable, f"nothing happens; shown: {self.shown.decode()!r}"
        try:
            data = os.read(self.number, 65536)
        except OSError:  # how Linux says that the program has closed the terminal
            return False
        self.shown += data
        return bool(data)


@contextmanager
def terminal(command, *, is_stdout=True, **environment):
    """A `Screen` on which a command runs; `is_stdout` False gives it no terminal to write to.

    Lines of the terminal do not wrap, so that what is typed is shown as it is.
    """
    process, number = pty.fork()
    if process == 0:
        if not is_stdout:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.execvpe(command[0], command, os.environ | {"TERM": "xterm"} | environment)
    termios.tcsetwinsize(number, (50, 20_000))
    screen = Screen(process, number)
    try:
        yield screen
    finally:
        if screen._status is None:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        os.close(number)
