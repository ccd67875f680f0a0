import itertools
import json
from types import SimpleNamespace

import IPython.display
import pytest

from llama_from_scratch.lessons.widgets import busy


@pytest.fixture
def shown(monkeypatch):
    """The bars that were shown, in a world where every step takes two seconds."""
    bars, ticks = [], itertools.count(step=2)
    monkeypatch.setattr(IPython.display, "display", bars.append)
    monkeypatch.setattr(busy, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    return bars


def words_of(bar):
    return bar.words.value.partition('role="status">')[2]


def test_the_items_come_through_and_the_bar_says_how_far_it_is_and_how_long_it_takes(shown):
    seen = []
    for item in busy.moving("abcd", what="training four models"):
        seen.append((item, shown[0].bar.value, words_of(shown[0])))
    assert [item for item, _, _ in seen] == list("abcd")
    assert [value for _, value, _ in seen] == [0, 1, 2, 3] and shown[0].bar.max == 4
    assert "training four models: 1 of 4, 6 s left" in seen[1][2] and "llama-busy" in seen[1][2]
    assert words_of(shown[0]) == "training four models: 4 of 4, done</div>"


def test_without_a_total_the_steps_are_counted(shown):
    for _ in busy.moving(iter("ab"), what="reading"):
        pass
    assert words_of(shown[0]) == "reading: 2, done</div>"
    assert shown[0].bar.layout.display == "none"


def test_a_loop_that_is_left_or_fails_says_where_it_stopped(shown):
    for item in busy.moving("abcd", what="searching", total=4):
        if item == "c":
            break
    with pytest.raises(ZeroDivisionError):
        for _ in busy.moving("ab", what="a < b"):
            raise ZeroDivisionError
    assert words_of(shown[0]) == "searching: 2 of 4, stopped</div>"
    assert words_of(shown[1]) == "a &lt; b: 0 of 2, stopped</div>"


def test_what_is_stored_is_one_line_that_no_run_changes(shown):
    for _ in range(2):
        for _ in busy.moving("ab", what="training two models"):
            pass
    stored = [bar._repr_mimebundle_() for bar in shown]
    line = "training two models: a bar shows how far it is while the cell runs"
    assert [bundle["text/plain"] for bundle in stored] == [line, line]
    assert "image/png" not in json.dumps(stored) and len(line.splitlines()) == 1
