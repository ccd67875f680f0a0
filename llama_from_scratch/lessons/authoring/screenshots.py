"""Photographs every picture and widget of notebooks as a reader sees them.

The notebooks run in JupyterLab in Chromium. Each picture is taken at three widths of the window, on
a light and on a dark page.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_from_scratch.lessons.authoring.lab import (
    DARK,
    LIGHT,
    Lab,
    chromium,
    open_notebook,
    run_all,
    running,
    shut_down,
)

WIDTHS = (900, 1280, 1920)
THEMES = {"light": LIGHT, "dark": DARK}

# A chapter that trains a model takes minutes on a slow machine.
_CELLS_TIMEOUT_S = 1200
# A picture whose cell shows it: a widget of the course, or an image without one.
_SHOWN = (".jp-OutputArea-output:has(.llama-widget), .jp-OutputArea-output:has(> img), "
          ".jp-OutputArea-output:has(> svg), .jp-RenderedMarkdown img")
_SET_THEME = """theme => jupyterapp.commands.execute('apputils:change-theme', {theme})"""
_IS_DRAWN = """theme => document.body.dataset.jpThemeName === theme"""


def screenshots(files: Sequence[Path], folder: Path) -> list[Path]:
    """Runs copies of the notebooks `files`, and returns the PNG files that it wrote to `folder`.

    They are named by notebook, number on the page, width and theme, such as
    `13_attention-04-900-dark.png`. Raises CannotOpen where JupyterLab or the browser is missing,
    and ValueError for a notebook whose cells fail.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken = []
    with tempfile.TemporaryDirectory() as place:
        served = Path(place) / "notebooks"
        served.mkdir()
        for file in files:
            shutil.copy(file, served)
        with running(served, places=Path(place) / "places") as lab, chromium() as browser:
            page = browser.new_page(viewport={"width": WIDTHS[-1], "height": 1000})
            for file in files:
                taken += _photograph(page, lab, file.name, folder)
    return taken


def _photograph(page: Any, lab: Lab, name: str, folder: Path) -> list[Path]:
    open_notebook(page, lab, name)
    if errors := run_all(page, timeout_s=_CELLS_TIMEOUT_S):
        raise ValueError(f"every cell of {name} must run before it is photographed; "
                         f"got {errors[0]}")
    # the file browser would take a third of a narrow window
    page.evaluate("() => jupyterapp.shell.collapseLeft()")
    taken = []
    for theme, its_name in THEMES.items():
        page.evaluate(_SET_THEME, its_name)
        page.wait_for_function(_IS_DRAWN, arg=its_name)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 1000})
            page.wait_for_timeout(500)
            for number, shown in enumerate(page.locator(_SHOWN).all(), start=1):
                if not shown.is_visible():
                    continue
                path = folder / f"{Path(name).stem}-{number:02d}-{width}-{theme}.png"
                shown.screenshot(path=path)
                taken.append(path)
    shut_down(page)
    return taken
