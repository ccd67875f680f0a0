"""The two errors of the checks: what was built is wrong, or is not written yet.

A notebook shows their words under the reader's own line, without a trace through this library.
"""

import traceback
from pathlib import Path


class _Told(Exception):
    """An error whose words are enough: notebooks show them under the reader's own line, without a
    trace through ours.
    """

    def _render_traceback_(self) -> list[str]:
        here = str(Path(__file__).parents[1])
        frames = [frame for frame in traceback.extract_tb(self.__traceback__)
                  if not frame.filename.startswith(here)]
        lines = [f"----> {frames[-1].lineno} {frames[-1].line}", ""] if frames else []
        return [*lines, f"{type(self).__name__}: {self}"]


class CheckFailed(_Told, AssertionError):
    """What the reader built is not what it should be; the message says where and, if it can be
    told, why.
    """


class NotWritten(_Told, NotImplementedError):
    """An exercise whose blank is still blank; the message is its task."""
