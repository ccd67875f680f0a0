"""The emulator's proofs once more, with the compiler of the wheel `ziglang` and no other, as on a laptop without g++.

The wheel takes 400 MB, so the tests do not ask for it: python -m pip install ziglang, and they run.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent

# A plugin of pytest: hides every other compiler, and the programs that could read a compiled file.
HIDE = """
import shutil
which = shutil.which
hidden = {"g++", "gcc", "clang++", "clang", "c++", "cc", "nm", "addr2line"}
shutil.which = lambda name, *args, **given: None if name in hidden else which(name, *args, **given)

def pytest_collection_modifyitems():
    from llama_from_scratch.kernels.emulator import build
    assert "ziglang" in build.find_compiler().command
"""


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("ziglang"), reason="the wheel `ziglang` (400 MB) is not installed")
@pytest.mark.parametrize("name", ["test_trace", "test_planted_bugs", "test_debug_info", "test_emulator"])
def test_proof_holds_with_the_compiler_of_the_wheel(name, tmp_path):
    (tmp_path / "hide_compilers.py").write_text(HIDE)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "hide_compilers"]
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run([*command, str(FOLDER / f"{name}.py")], capture_output=True, text=True, cwd=FOLDER.parents[2],
                          env=dict(os.environ, PYTHONPATH=paths))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
