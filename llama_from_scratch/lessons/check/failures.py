"""The two errors of the checks: the reader's answer is wrong, or it is not written yet.

A notebook shows their message under the reader's own line, without this library's frames.
"""

import traceback
from pathlib import Path


class _Told(Exception):
    """An error whose message is enough without a traceback.

    Notebooks show the message under the reader's own line, without this library's frames.
    """

    def _render_traceback_(self) -> list[str]:
        here = str(Path(__file__).parents[1])
        frames = [frame for frame in traceback.extract_tb(self.__traceback__)
                  if not frame.filename.startswith(here)]
        lines = [f"----> {frames[-1].lineno} {frames[-1].line}", ""] if frames else []
        return [*lines, f"{type(self).__name__}: {self}"]


class CheckFailed(_Told, AssertionError):
    """What the reader built is not what it should be.

    The message says where it differs and, if that can be found, why.
    """


class NotWritten(_Told, NotImplementedError):
    """The reader has not filled the blank of an exercise yet; the message gives the task."""
