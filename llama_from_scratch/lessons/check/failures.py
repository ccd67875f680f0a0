"""The two errors of the checks: what was built is wrong, or is not written yet.

A notebook shows their words under the reader's own line, without a trace through this library.
"""

import traceback
from pathlib import Path


class _Told(Exception):
    """Carries a message that is enough without a trace.

    Notebooks show it under the reader's own line, without a trace through this library.
    """

    def _render_traceback_(self) -> list[str]:
        here = str(Path(__file__).parents[1])
        frames = [frame for frame in traceback.extract_tb(self.__traceback__)
                  if not frame.filename.startswith(here)]
        lines = [f"----> {frames[-1].lineno} {frames[-1].line}", ""] if frames else []
        return [*lines, f"{type(self).__name__}: {self}"]


class CheckFailed(_Told, AssertionError):
    """Reports that what the reader built is not what it should be.

    The message says where and, if that can be found, why.
    """


class NotWritten(_Told, NotImplementedError):
    """An exercise whose blank is still blank; the message is its task."""
