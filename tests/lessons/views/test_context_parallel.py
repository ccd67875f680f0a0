import matplotlib.pyplot as plt
import pytest
from pictures import faults, styled

from llama_from_scratch.lessons.figures import context
from llama_from_scratch.lessons.views import context_parallel as views


@pytest.fixture(autouse=True)
def style(monkeypatch):
    styled(monkeypatch)
    yield
    plt.close("all")


@pytest.mark.parametrize("documents", views.DOCUMENTS.values())
@pytest.mark.parametrize("chunk_size", views.CHUNKS.values())
def test_every_choice_can_be_cut_and_read(documents, chunk_size):
    for n_ranks in range(2, context.MAX_RANKS + 1):
        assert sum(documents) % (2 * n_ranks) == 0
    assert faults(context.sight(n_ranks=4, documents=documents, chunk_size=chunk_size)) == []


def test_a_control_changes_the_picture_and_the_words():
    view = views.context_ranks()
    before = view.picture.value
    assert "compute 78, 222 of 300 pairs" in view.words.value
    view.controls["cut"].value = "zig-zag"
    assert view.picture.value != before and "compute 150, 150 of 300" in view.words.value
    view.controls["documents"].value = "short ones, then a long one"
    assert "compute 150, 150" not in view.words.value
    view.controls["chunk_size"].value = "3"
    assert view.problem.value == ""
