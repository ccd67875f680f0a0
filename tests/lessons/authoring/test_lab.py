"""What is missing is named; that JupyterLab starts and is driven is seen by tests/browser."""

import sys

import pytest

from llama_from_scratch.lessons.authoring import lab


def test_a_server_that_ends_at_once_is_reported_with_its_last_words(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho no module named jupyterlab\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with (pytest.raises(lab.CannotOpen, match="must start within 90 s; it wrote:\nno module named"),
          lab.running(tmp_path, places=tmp_path / "places")):
        raise AssertionError("it must not be yielded")


def test_settings_and_the_first_code_of_kernels_are_written_where_jupyter_reads_them(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(lab.subprocess, "Popen", lambda *arguments, **settings: 1 / 0)
    with (pytest.raises(ZeroDivisionError),
          lab.running(tmp_path, places=tmp_path, settings={"@a/b:c": {"d": 1}}, startup="e = 2")):
        pass
    assert (tmp_path / "settings/@a/b/c.jupyterlab-settings").read_text() == '{"d": 1}'
    assert (tmp_path / "ipython/profile_default/startup/first.py").read_text() == "e = 2"


def test_without_a_browser_it_is_named_with_its_cure(monkeypatch):
    pytest.importorskip("playwright")
    monkeypatch.setattr(lab.shutil, "which", lambda program: None)
    with pytest.raises(lab.CannotOpen, match="needs Chromium or Chrome; found no"), lab.chromium():
        pass


def test_without_playwright_it_is_named_with_its_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    with (pytest.raises(lab.CannotOpen, match=r"playwright, which is not installed: pip install"),
          lab.chromium()):
        pass
