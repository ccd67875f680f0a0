import shutil
from pathlib import Path

import pytest
from tiny_notebooks import write_tiny

from llama_from_scratch.lessons.authoring.executing import run


@pytest.fixture(scope="session")
def ran(tmp_path_factory):
    """A tiny notebook that was run and stored; not to be changed."""
    path = write_tiny(tmp_path_factory.mktemp("ran"))
    assert run(path)
    return path


@pytest.fixture
def tiny(ran, tmp_path):
    """A copy of it that may be changed."""
    return Path(shutil.copy(ran, tmp_path))
