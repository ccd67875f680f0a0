"""Runs a JupyterLab and a real browser on a folder of notebooks.

The server has Jupyter folders of its own, a free port and a token. The browser is the machine's own
Chromium, driven by playwright. Nothing is downloaded, and nothing leaves 127.0.0.1.

Used by the browser tests and by the command that takes screenshots.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--disable-component-update"]
# A news pop-up would cover the corner; cells out of sight would not be drawn.
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
}
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
    startup: str = "", environment: Mapping[str, str] | None = None
) -> Iterator[Lab]:
    """Yields a JupyterLab that serves `folder`, and stops it afterwards.

    `places`: an empty folder for its own files. `settings`: by plugin. `startup`: Python that every
    kernel runs first. `environment`: more variables. Raises CannotOpen if it does not start.
    """
    for plugin, value in settings.items():
        file = places / "settings" / f"{plugin.replace(':', '/')}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value), encoding="utf-8")
    first = places / _FOLDERS["IPYTHONDIR"] / "profile_default" / "startup" / "first.py"
    first.parent.mkdir(parents=True, exist_ok=True)
    first.write_text(startup, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1",
               f"--port={port}", "--allow-root", "--ServerApp.port_retries=0",
               f"--ServerApp.root_dir={folder}", "--expose-app-in-browser"]
    variables = (os.environ | {name: str(places / part) for name, part in _FOLDERS.items()}
                 | {"JUPYTER_TOKEN": token} | dict(environment or {}))
    log = places / "log"
    with open(log, "w", encoding="utf-8") as words:
        server = subprocess.Popen(command, env=variables, stdout=words, stderr=words)
        try:
            _wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", server, log)
            yield Lab(f"http://127.0.0.1:{port}", token, folder)
        finally:
            server.terminate()
            server.wait(30)


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end and server.poll() is None:
        try:
            urlopen(address, timeout=5).close()
            return
        except (URLError, OSError):
            time.sleep(0.1)
    words = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise CannotOpen(f"JupyterLab must start within {START_TIMEOUT_S} s; it wrote:\n{words}")


@contextlib.contextmanager
def chromium() -> Iterator["Browser"]:
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


def open_notebook(page: "Page", lab: Lab, name: str) -> None:
    """Opens a notebook of the served folder, and returns when its kernel is idle."""
    page.goto(f"{lab.url}/lab/tree/{name}?reset&token={lab.token}")
    page.wait_for_function(IS_READY, timeout=1000 * START_TIMEOUT_S)


def run_all(page: "Page", *, timeout_s: float) -> list[str]:
    """Runs every cell of the open notebook, and returns the errors, none if all is well."""
    page.set_default_timeout(1000 * timeout_s)
    errors = page.evaluate(_RUN_ALL)
    page.set_default_timeout(30_000)
    return [error for error in errors if error]


def shut_down(page: "Page") -> None:
    """Ends the kernel of the open notebook, if one is open."""
    page.evaluate(_SHUT_DOWN)
