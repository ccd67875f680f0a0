"""A real JupyterLab and a real browser: what a reader's hands and eyes would find.

The server gets copies of the notebooks, Jupyter folders of its own, a free port and a token. The
browser is the machine's own Chromium, driven by playwright; nothing is downloaded and nothing
leaves 127.0.0.1.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SCREENSHOTS = Path(__file__).parent / "screenshots"

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
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}
FOLDERS = {
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "IPYTHONDIR": "ipython",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
}
# What is looked at here are widgets, not how well a model learns: batches of a few tokens train in
# a tenth of the time. The notebooks themselves, whole and as they are, run under nbval.
SHORT_BATCHES = """\
from llama_from_scratch.train import Packed

def short_batch(self, step, *, whole=Packed.batch, batch_size, seq_len, **settings):
    return whole(self, step, batch_size=1, seq_len=min(seq_len, 16), **settings)

Packed.batch = short_batch
"""
START_TIMEOUT_S = 90
CELLS_TIMEOUT_S = 240

IS_READY = """() => {
    const panel = window.jupyterapp?.shell.currentWidget;
    return panel?.context?.isReady && panel.sessionContext?.session?.kernel?.status === 'idle';
}"""
# The command's promise resolves when the last cell is done.
RUN_ALL = """async () => {
    const panel = jupyterapp.shell.currentWidget;
    await jupyterapp.commands.execute('notebook:run-all-cells');
    const cells = panel.content.model.sharedModel.toJSON().cells;
    const errors = cell => cell.outputs.filter(out => out.output_type === 'error');
    return cells.filter(cell => cell.cell_type === 'code').map(
        cell => errors(cell).map(out => out.ename + ': ' + out.evalue)[0] ?? null);
}"""
SHUT_DOWN = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.shutdown()"


class Lab(NamedTuple):
    """A running JupyterLab: its address, its token, and the folder it serves."""

    url: str
    token: str
    folder: Path


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    pytest.importorskip("jupyterlab",
                        reason='the browser tests need JupyterLab: pip install -e ".[notebooks]"')
    root = tmp_path_factory.mktemp("lab")
    folder = root / "notebooks"
    shutil.copytree(NOTEBOOKS, folder, ignore=shutil.ignore_patterns("conftest.py", "__pycache__",
                                                                     ".ipynb_checkpoints"))
    for plugin, value in SETTINGS.items():
        file = root / "settings" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value))
    startup = root / FOLDERS["IPYTHONDIR"] / "profile_default" / "startup" / "short_batches.py"
    startup.parent.mkdir(parents=True)
    startup.write_text(SHORT_BATCHES)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1",
               f"--port={port}", "--allow-root"]
    command += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}",
                "--expose-app-in-browser"]
    environment = (os.environ | {name: str(root / part) for name, part in FOLDERS.items()}
                   | {"JUPYTER_TOKEN": token})
    with open(root / "log", "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", server, root / "log")
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
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def browser():
    api = pytest.importorskip("playwright.sync_api",
                              reason='the browser tests need playwright: pip install -e ".[test]"')
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("the browser tests need Chromium or Chrome, found none: sudo apt install "
                    "chromium (Debian, Ubuntu)")
    with api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=program, args=FLAGS)
        # one context for all, so that JupyterLab's own files are loaded once
        yield chromium.new_context(viewport={"width": 1280, "height": 1000})
        chromium.close()


@pytest.fixture
def page(browser, request):
    """A fresh page; what it showed last is kept in `screenshots/`, under the name of the test."""
    page = browser.new_page()
    page.set_default_timeout(30_000)
    yield page
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{request.node.name}.png")
    page.evaluate(SHUT_DOWN)
    page.close()


@pytest.fixture
def run_notebook(lab) -> Callable[..., list[str]]:
    """`run_notebook(page, name)` opens a notebook, runs every cell and gives the errors, none if
    all is well.
    """

    def run(page, name: str) -> list[str]:
        page.goto(f"{lab.url}/lab/tree/{name}?reset&token={lab.token}")
        page.wait_for_function(IS_READY, timeout=1000 * START_TIMEOUT_S)
        page.set_default_timeout(1000 * CELLS_TIMEOUT_S)
        errors = page.evaluate(RUN_ALL)
        page.set_default_timeout(30_000)
        return [error for error in errors if error]

    return run
