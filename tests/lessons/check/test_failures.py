"""What a notebook shows of the two errors of the checks."""

import re
from pathlib import Path

import pytest

from llama_from_scratch.lessons import check
from llama_from_scratch.lessons.check import CheckFailed, NotWritten


@pytest.mark.parametrize("error", [CheckFailed, NotWritten])
def test_notebook_shows_the_words_under_the_readers_line_and_no_trace_through_the_library(error):
    library = {"error": error}
    exec(compile("def fail(): raise error('words')", Path(check.__file__).parent / "any.py",
                 "exec"), library)
    with pytest.raises(error) as failed:
        library["fail"]()
    arrow, *words = failed.value._render_traceback_()
    assert re.fullmatch(r"----> \d+ library\[.fail.\]\(\)", arrow)
    assert words == ["", f"{error.__name__}: words"]
