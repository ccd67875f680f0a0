import pytest

from llama_from_scratch.lessons.learner import remembering


@pytest.fixture
def reader(tmp_path):
    """The record of a reader whose kernel remembers."""
    file = tmp_path / "runs" / "progress.json"
    file.parent.mkdir()
    remembering.remember(file)
    yield file
    remembering.forget()
