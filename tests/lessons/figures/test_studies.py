import pytest

from llama_from_scratch.lessons.figures import studies
from llama_from_scratch.tune.studies.study import StudyRun, StudyTable


@pytest.fixture
def table():
    runs = tuple(StudyRun(method=method, seed=seed, seconds=1.0, values={
        "score": (value + 0.1 * seed, 0.05), **({"words": (9.0, 0.5)} if method != "a" else {})})
        for method, value in (("a", 1.0), ("b", 2.0)) for seed in (0, 1))
    return StudyTable(name="one", about="Which?", control="a", runs=runs, machine="a machine",
                      began="2026-01-02")


def test_every_seed_is_a_dot_and_the_control_a_line(table):
    fig = studies.methods(table)
    left, right = fig.axes
    drawn = [line.get_xdata()[0] for line in left.lines if line.get_marker() == "o"]
    assert drawn == [1.0, 1.1, 2.0, 2.1]
    control = next(line for line in left.lines if line.get_linestyle() == ":")
    assert control.get_xdata()[0] == pytest.approx(1.05)
    assert len([line for line in right.lines if line.get_marker() == "o"]) == 2
    assert [text.get_text() for text in left.get_yticklabels()] == ["a", "b"]
    assert "a machine" in fig._supxlabel.get_text() and "2 seeds" in fig._supxlabel.get_text()
    assert "b: score 2.00 and 2.10, words 9.00 and 9.00." in fig.get_label()


def test_measures_are_chosen_by_name(table):
    assert len(studies.methods(table, ["score"]).axes) == 1
    with pytest.raises(ValueError, match="has the measures score, words; got 'wins'"):
        studies.methods(table, ["wins"])
