"""Runs a JupyterLab and a real browser on a folder of notebooks.

JupyterLab reads the course's settings, as the one that start.py opens does. The server has Jupyter
folders of its own, a free port and a token. The browser is the machine's own Chromium, driven by
playwright. Nothing is downloaded, and nothing leaves 127.0.0.1.

Used by the browser tests and by the command that takes screenshots.
"""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--disable-component-update"]
# Cells out of sight would not be drawn.
SETTINGS = {"@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"}}
COURSE_SETTINGS = Path(__file__).resolve().parents[1] / "jupyter_settings"
LIGHT, DARK = "JupyterLab Light", "JupyterLab Dark"
_FOLDERS = {
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "IPYTHONDIR": "ipython",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
}
START_TIMEOUT_S = 90

IS_READY = """() => {
    const panel = window.jupyterapp?.shell.currentWidget;
    return panel?.context?.isReady && panel.sessionContext?.session?.kernel?.status === 'idle';
}"""
# The command's promise resolves when the last cell is done.
_RUN_ALL = """async () => {
    const panel = jupyterapp.shell.currentWidget;
    await jupyterapp.commands.execute('notebook:run-all-cells');
    const cells = panel.content.model.sharedModel.toJSON().cells;
    const errors = cell => cell.outputs.filter(out => out.output_type === 'error');
    return cells.filter(cell => cell.cell_type === 'code').map(
        cell => errors(cell).map(out => out.ename + ': ' + out.evalue)[0] ?? null);
}"""
_SHUT_DOWN = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.shutdown()"
# `dispose` asks nothing about changes that were not saved.
_EXCHANGE = """async name => {
    [...jupyterapp.shell.widgets('main')].forEach(widget => widget.dispose());
    await jupyterapp.commands.execute('docmanager:open', {path: name, factory: 'Notebook'});
    jupyterapp.shell.activateById(jupyterapp.shell.currentWidget.id);
}"""


class CannotOpen(Exception):
    """What is missing for a JupyterLab in a browser, and its cure."""


class Lab(NamedTuple):
    """A running JupyterLab: its address, its token, and the folder it serves."""

    url: str
    token: str
    folder: Path


@contextlib.contextmanager
def running(
    folder: Path, *, places: Path, settings: Mapping[str, Mapping[str, Any]] = SETTINGS,
    startup: str = ""
) -> Iterator[Lab]:
    """Yields a JupyterLab that serves `folder`, and stops it afterwards.

    `places`: an empty folder for its own files. `settings`: by plugin. `startup`: Python that every
    kernel runs first. Raises CannotOpen if it does not start.
    """
    for plugin, value in settings.items():
        file = places / "settings" / f"{plugin.replace(':', '/')}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value), encoding="utf-8")
    first = places / _FOLDERS["IPYTHONDIR"] / "profile_default" / "startup" / "first.py"
    first.parent.mkdir(parents=True, exist_ok=True)
    first.write_text(startup, encoding="utf-8")
    token = secrets.token_hex(16)
    # Another program may take a port that was free a moment ago, so the server looks for one.
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1",
               f"--port={20_000 + secrets.randbelow(10_000)}", "--allow-root",
               f"--ServerApp.root_dir={folder}", "--expose-app-in-browser"]
    variables = (os.environ | {name: str(places / part) for name, part in _FOLDERS.items()}
                 | {"JUPYTER_TOKEN": token, "JUPYTER_CONFIG_PATH": str(COURSE_SETTINGS)})
    log = places / "log"
    with open(log, "w", encoding="utf-8") as words:
        server = subprocess.Popen(command, env=variables, stdout=words, stderr=words)
        try:
            said = places / _FOLDERS["JUPYTER_RUNTIME_DIR"] / f"jpserver-{server.pid}.json"
            yield Lab(_address(said, token, server, log), token, folder)
        finally:
            server.terminate()
            server.wait(30)


def _address(said: Path, token: str, server: subprocess.Popen, log: Path) -> str:
    """Returns where the server answers, which it writes into the file `said`."""
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end and server.poll() is None:
        try:
            url = f"http://127.0.0.1:{json.loads(said.read_text(encoding='utf-8'))['port']}"
            urlopen(f"{url}/api/status?token={token}", timeout=5).close()
            return url
        except (OSError, ValueError):  # not written yet, written in part, or not answered yet
            time.sleep(0.1)
    words = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise CannotOpen(f"JupyterLab must start within {START_TIMEOUT_S} s; it wrote:\n{words}")


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Yields this machine's own Chromium or Chrome, without a window.

    Raises CannotOpen where it or playwright is missing.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise CannotOpen("a browser is driven by playwright, which is not installed: "
                         'pip install -e ".[test]"') from error
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise CannotOpen("this needs Chromium or Chrome; found none: sudo apt install chromium "
                         "(Debian, Ubuntu)")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


def open_notebook(page: Any, lab: Lab, name: str) -> None:
    """Opens a notebook of the served folder in playwright's `page`, and waits for its kernel."""
    page.goto(f"{lab.url}/lab/tree/{name}?reset&token={lab.token}")
    page.wait_for_function(IS_READY, timeout=1000 * START_TIMEOUT_S)


def exchange_notebook(page: Any, name: str) -> None:
    """Opens another notebook in a page where JupyterLab is loaded, and waits for its kernel.

    Closes all others without saving them. To load JupyterLab takes longer than to run most cells.
    """
    page.evaluate(_EXCHANGE, name)
    page.wait_for_function(IS_READY, timeout=1000 * START_TIMEOUT_S)


def run_all(page: Any, *, timeout_s: float | int) -> list[str]:
    """Runs every cell of the open notebook, and returns the errors, none if all is well."""
    page.set_default_timeout(1000 * timeout_s)
    errors = page.evaluate(_RUN_ALL)
    page.set_default_timeout(30_000)
    return [error for error in errors if error]


def shut_down(page: Any) -> None:
    """Ends the kernel of the open notebook, if one is open."""
    page.evaluate(_SHUT_DOWN)
