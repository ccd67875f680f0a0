"""A Python process that answers lines with lines, and that always ends.

It is started without a shell, in a session of its own, so that it is killed together with the
processes that it started. The parent waits for each answer for a stated time and reads a stated
number of bytes. A bare child sees nothing of the parent: no environment, no site packages, and an
empty folder that is removed at the end.

Notebook 58.
"""

import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

MAX_ANSWER_BYTES = 1 << 22
"""The most bytes of one answer."""


class ChildDied(RuntimeError):
    """The child ended before it answered. `code` is its exit status, negative for a signal."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"the child process ended with status {code}")
        self.code = code


class ChildLate(RuntimeError):
    """The child did not answer in time."""


class ChildProcess:
    """A process that runs a Python file. Use it in a `with` block, which kills it at the end.

    `is_bare`: it gets nothing of the parent's environment, and works in an empty folder of its own.
    """

    def __init__(self, script: str | os.PathLike, *, is_bare: bool) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="child-")) if is_bare else None
        flags = ["-I", "-S", "-B"] if is_bare else ["-B"]
        try:
            self._process = subprocess.Popen(
                [sys.executable, *flags, os.fspath(script)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=self._folder,
                env=_bare_environment() if is_bare else None, start_new_session=True)
        except BaseException:
            self._remove_folder()
            raise
        self._answers: queue.Queue[bytes] = queue.Queue(maxsize=2)
        self._is_read = True
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "ChildProcess":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def ask(self, line: bytes, *, time_s: float) -> bytes:
        """Returns the line with which the child answers.

        Raises ChildLate after `time_s` seconds, and ChildDied if the child has ended or if its
        answer is longer than `MAX_ANSWER_BYTES`. The child is of no use afterwards.
        """
        self.tell(line)
        return self.answer(time_s=time_s)

    def tell(self, line: bytes) -> None:
        """Sends a line. A child that has ended is noticed by `answer`."""
        assert b"\n" not in line and self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()

    def answer(self, *, time_s: float) -> bytes:
        """Returns the next line of the child; raises as `ask` does."""
        try:
            line = self._answers.get(timeout=time_s)
        except queue.Empty:
            raise ChildLate from None
        if not line.endswith(b"\n"):
            raise ChildDied(self._end())
        return line[:-1]

    def close(self) -> None:
        """Kills the child and all processes in its session, and removes its folder."""
        self._is_read = False
        self._end()
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        with contextlib.suppress(queue.Empty):
            while True:
                self._answers.get_nowait()
        self._reader.join(timeout=5.0)
        if not self._reader.is_alive():
            self._process.stdout.close()
        self._remove_folder()

    def _end(self) -> int | None:
        """Kills the group before the child is waited for, so that its number is still taken."""
        if self._process.returncode is None:
            if os.name == "posix":
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=10.0)
        return self._process.returncode

    def _read(self) -> None:
        assert self._process.stdout is not None
        while self._is_read:
            try:
                line = self._process.stdout.readline(MAX_ANSWER_BYTES)
            except (OSError, ValueError):
                line = b""
            while self._is_read:
                with contextlib.suppress(queue.Full):
                    self._answers.put(line, timeout=0.1)
                    break
            if not line.endswith(b"\n"):
                return

    def _remove_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _bare_environment() -> dict[str, str]:
    """Returns what Python cannot start without: nothing, except on Windows."""
    return {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}
