"""A real JupyterLab and a real browser: what a reader's hands and eyes would find.

The server gets copies of the notebooks; `lessons.authoring.lab` starts it and drives the browser.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_from_scratch.lessons.authoring.lab import (
    CannotOpen,
    chromium,
    exchange_notebook,
    open_notebook,
    run_all,
    running,
    shut_down,
)

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SCREENSHOTS = Path(__file__).parent / "screenshots"

# What is looked at here are widgets, not how well a model learns: batches of a few tokens or
# pictures train in a tenth of the time. The notebooks themselves, whole and as they are, run in
# tests/lessons/authoring/test_proof.py.
SHORT_BATCHES = """\
from dataclasses import replace

from llama_from_scratch.train import Packed, seeing

def short_batch(self, step, *, whole=Packed.batch, batch_size, seq_len, **settings):
    if seq_len <= 64:  # a batch that a cell looks at, or a short run whose result is compared
        return whole(self, step, batch_size=batch_size, seq_len=seq_len, **settings)
    return whole(self, step, batch_size=1, seq_len=16, **settings)

def with_few_pictures(train):
    return lambda *args, stage, **settings: train(*args, stage=replace(stage, n_images=2),
                                                  **settings)

Packed.batch = short_batch
seeing.train_encoder = with_few_pictures(seeing.train_encoder)
seeing.train_adapter = with_few_pictures(seeing.train_adapter)
"""
# Runs on such batches must not be remembered as the runs of the experiments.
OWN_STORE = """
import os

os.environ["LLAMA_RUNS"] = {folder!r}
"""
CELLS_TIMEOUT_S = 240
VIEWPORT = {"width": 1280, "height": 1000}


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    pytest.importorskip("jupyterlab",
                        reason='the browser tests need JupyterLab: pip install -e ".[notebooks]"')
    root = tmp_path_factory.mktemp("lab")
    folder = root / "notebooks"
    shutil.copytree(NOTEBOOKS, folder, ignore=shutil.ignore_patterns("conftest.py", "__pycache__",
                                                                     ".ipynb_checkpoints"))
    startup = SHORT_BATCHES + OWN_STORE.format(folder=str(root / "runs"))
    with running(folder, places=root / "places", startup=startup) as started:
        yield started


@pytest.fixture(scope="session")
def program():
    try:
        with chromium() as found:
            yield found
    except CannotOpen as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def browser(program):
    # one context for all, so that JupyterLab's own files are loaded once
    return program.new_context(viewport=VIEWPORT)


@pytest.fixture(scope="session")
def window(browser):
    """One page for all tests, because loading JupyterLab takes longer than most tests."""
    window = browser.new_page()
    window.set_default_timeout(30_000)
    return window


@pytest.fixture
def page(window, request):
    """The page, without an open notebook; what it showed last is kept in `screenshots/`, under the
    name of the test.
    """
    window.set_viewport_size(VIEWPORT)
    yield window
    SCREENSHOTS.mkdir(exist_ok=True)
    window.screenshot(path=SCREENSHOTS / f"{request.node.name}.png")
    shut_down(window)


@pytest.fixture
def run_notebook(lab) -> Callable[..., list[str]]:
    """`run_notebook(page, name)` opens a notebook, runs every cell and gives the errors, none if
    all is well.
    """

    def run(page, name: str) -> list[str]:
        if page.url.startswith(lab.url):
            exchange_notebook(page, name)
        else:
            open_notebook(page, lab, name)
        return run_all(page, timeout_s=CELLS_TIMEOUT_S)

    return run
