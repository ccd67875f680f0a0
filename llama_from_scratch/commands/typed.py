"""Reads what a user types, one message at a time; a pasted text is one message.

On a terminal, the standard `readline` edits the line. If the terminal marks a paste, `readline`
takes it as a whole. Other terminals send the lines of a paste faster than a person types, so text
that is waiting after Enter belongs to the same message. During the conversation, the terminal
neither cuts long lines nor echoes what is typed during an answer. At the end, nothing that was
typed or pasted is left for the shell. If stdin is a file or a pipe, each line is a message.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

Read = Callable[[str], str | None]
"""Shows a prompt and returns the next message, or None at the end (Ctrl-D, or the end of a file).

Raises KeyboardInterrupt at Ctrl-C, and ValueError for a line that the terminal has cut."""

_QUIET_S = 0.1
"""A paste is over when nothing has arrived for this many seconds. People type more slowly."""
_LINE_BYTES = 4096
"""The longest line, including its end, that a Linux terminal passes on (termios(3))."""


@contextlib.contextmanager
def reader() -> Iterator[Read]:
    """Yields a `Read`, and restores the terminal after the block."""
    if not sys.stdin.isatty():
        yield _line_of_file
    elif os.name == "nt":
        yield _lines_of_console
    else:
        keyboard = _Keyboard(sys.stdin.fileno())
        try:
            yield keyboard.read
        finally:
            keyboard.close()


def _line_of_file(prompt: str) -> str | None:
    line = sys.stdin.readline()
    if not line:
        return None
    print(prompt + line.rstrip("\n"))  # so that the output is the whole conversation
    return line.rstrip("\n")


def _lines_of_console(prompt: str) -> str | None:
    import msvcrt

    try:
        lines = [input(prompt)]
        while msvcrt.kbhit():
            lines.append(input())
    except EOFError:
        return None
    return "\n".join(lines)


class _Keyboard:
    """The terminal of a Unix system, whose file descriptor is `number`."""

    def __init__(self, number: int) -> None:
        import termios

        self._number, self._before = number, termios.tcgetattr(number)
        self._editor, self._is_at_end = _editor(), False

    def read(self, prompt: str) -> str | None:
        """Returns the next message, as described at `Read`."""
        try:
            text = None if self._is_at_end else self._line(prompt, begun="")
        except EOFError:
            text = None
        while text is not None and (more := self._waiting()):
            text = self._joined(text, more)
        return text

    def close(self) -> None:
        """Discards what is still waiting, and restores the terminal."""
        import termios

        while self._waiting():
            pass
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(self._number, termios.TCSAFLUSH, self._before)

    def _joined(self, text: str, more: str) -> str:
        """Returns the message so far and what was waiting, after editing of an unfinished line."""
        more, ctrl_d, _ = more.partition("\x04")
        self._is_at_end = bool(ctrl_d)
        *lines, begun = more.split("\n")
        if self._editor is not None:  # otherwise the terminal has shown them
            print(*lines, sep="\n", end="\n" if lines else "")
        if begun and not ctrl_d:
            try:
                begun = self._line("", begun=begun)
            except EOFError:
                self._is_at_end = True
            lines.append(begun)
        elif begun:
            lines.append(begun)
        return "\n".join([text, *lines])

    def _line(self, prompt: str, *, begun: str) -> str:
        """Returns one line, or the lines of a marked paste. Raises EOFError at Ctrl-D."""
        if self._editor is None:
            return self._unedited_line(prompt, begun=begun)
        self._set_raw(is_echoed=True)  # readline shows nothing if the terminal does not echo
        self._editor.set_startup_hook(lambda: self._editor.insert_text(begun))
        try:
            return input(prompt)
        finally:
            self._editor.set_startup_hook()
            self._set_raw(is_echoed=False)

    def _unedited_line(self, prompt: str, *, begun: str) -> str:
        import termios

        termios.tcsetattr(self._number, termios.TCSADRAIN, self._before)
        print(prompt, end="", file=sys.stderr, flush=True)
        line = os.read(self._number, 2 * _LINE_BYTES)
        if not line:
            raise EOFError
        if len(line) >= _LINE_BYTES:
            raise ValueError(f"this terminal passes on at most {_LINE_BYTES - 1:,} bytes of a "
                             "line; this line has reached that length, so its end may be lost. "
                             "Write several lines, or use standard input: llama chat < FILE")
        return begun + line.decode(errors="replace").removesuffix("\n")

    def _set_raw(self, *, is_echoed: bool) -> None:
        """Makes the terminal pass on lines of any length, and keep Ctrl-C and Ctrl-Z."""
        import termios

        with contextlib.suppress(termios.error):  # the terminal is gone
            mode = termios.tcgetattr(self._number)
            mode[3] &= ~(termios.ICANON | termios.ECHO)
            mode[3] |= termios.ECHO * is_echoed
            mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
            termios.tcsetattr(self._number, termios.TCSADRAIN, mode)

    def _waiting(self) -> str:
        """Returns what was typed and not yet read, once no more arrives; "" if there is none."""
        import select

        data = b""
        self._set_raw(is_echoed=self._editor is None)
        with contextlib.suppress(OSError):  # the terminal is gone
            while select.select([self._number], [], [], _QUIET_S)[0]:
                chunk = os.read(self._number, 65536)
                if not chunk:
                    break
                data += chunk
        for mark in (b"\x1b[200~", b"\x1b[201~"):  # around a paste
            data = data.replace(mark, b"")
        text = data.decode(errors="replace")
        return text.replace("\r\n", "\n").replace("\r", "\n")


def _editor():
    """Returns the module `readline`, or None if it cannot edit here.

    It needs a terminal on stdout as well.
    """
    try:
        import readline
    except ImportError:
        return None
    if not sys.stdout.isatty():
        return None
    readline.parse_and_bind("set enable-bracketed-paste on")
    readline.parse_and_bind("tab: self-insert")
    return readline
