"""Which pictures are taken, by a page that is none; `tests/browser` drives a real one."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from llama_from_scratch.lessons.authoring import screenshots
from llama_from_scratch.lessons.authoring.__main__ import main
from llama_from_scratch.lessons.authoring.lab import Lab


class Page:
    """A page with two pictures, one of them out of sight, that notes what is done to it."""

    def __init__(self):
        self.width, self.theme = 0, ""

    def evaluate(self, code, theme=None):
        self.theme = theme or self.theme

    def set_viewport_size(self, size):
        self.width = size["width"]

    def wait_for_function(self, code, arg):
        assert arg == self.theme

    def wait_for_timeout(self, milliseconds):
        pass

    def locator(self, selector):
        take = lambda path: path.write_text(f"{self.theme} {self.width}")
        seen, unseen = (SimpleNamespace(is_visible=lambda is_seen=is_seen: is_seen, screenshot=take)
                        for is_seen in (True, False))
        return SimpleNamespace(all=lambda: [seen, unseen])


@pytest.fixture
def errors(monkeypatch):
    """No JupyterLab and no browser; the errors of the cells, to be filled."""
    found = []
    browser = SimpleNamespace(new_page=lambda viewport: Page())
    monkeypatch.setattr(screenshots, "running",
                        lambda folder, places: nullcontext(Lab("", "", folder)))
    monkeypatch.setattr(screenshots, "chromium", lambda: nullcontext(browser))
    monkeypatch.setattr(screenshots, "open_notebook",
                        lambda page, lab, name: (lab.folder / name).read_text())
    monkeypatch.setattr(screenshots, "run_all", lambda page, timeout_s: found)
    monkeypatch.setattr(screenshots, "shut_down", lambda page: None)
    return found


def test_every_visible_picture_is_taken_at_each_width_on_each_ground(errors, chapter, tmp_path):
    taken = screenshots.screenshots([chapter], tmp_path / "out")
    assert {path.name: path.read_text() for path in taken} == {
        f"12_turn-01-{width}-{theme}.png": f"{name} {width}" for width in (900, 1280, 1920)
        for theme, name in (("light", "JupyterLab Light"), ("dark", "JupyterLab Dark"))}


def test_a_notebook_that_fails_is_named_and_the_command_ends_with_1(
    errors, chapter, tmp_path, capsys
):
    assert main(["screenshots", str(tmp_path / "out"), str(chapter)]) == 0
    assert "6 pictures of 1 notebooks written to" in capsys.readouterr().out
    errors.append("ZeroDivisionError: division by zero")
    assert main(["screenshots", str(tmp_path / "out"), str(chapter)]) == 1
    assert ("every cell of 12_turn.ipynb must run before it is photographed; got "
            "ZeroDivisionError") in capsys.readouterr().out
