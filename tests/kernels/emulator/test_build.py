"""Which compiler makes a kernel into a program for this CPU, how often, and what is said where it
cannot."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llama_from_scratch.kernels.emulator import build
from llama_from_scratch.kernels.machinery.nvrtc import CompileError
from llama_from_scratch.kernels.machinery.source import FOLDER, Program, Source

HEADERS = {"common.cuh": (FOLDER / "common.cuh").read_text()}
TEXT = """#include "common.cuh"
extern "C" __global__ void doubled(float* y) { y[threadIdx.x] *= 2; }
"""


def program(text=TEXT, real=torch.float32, name="doubled"):
    return Program(source=Source(name=name, text=text, headers=HEADERS), real=real)


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be one of fast, checked, traced, address, "
                                         "thread; got 'slow'"):
        build.build(program(), kind="slow")


def test_source_with_an_error_is_told_with_its_line():
    text = ('#include "common.cuh"\n\n'
            'extern "C" __global__ void f(float* y) { y[0] = undefined_thing; }\n')
    with pytest.raises(CompileError, match=r"(?s)broken.cu does not compile for "
                                           r"float.*broken\.cu:3:\d+: error: .*undefined"):
        build.build(program(text, name="broken"), kind="fast")


def test_program_is_compiled_once(monkeypatch, tmp_path):
    first = build.build(program(), kind="fast", folder=tmp_path)
    monkeypatch.setattr(subprocess, "run", None)
    assert build.build(program(), kind="fast", folder=tmp_path) == first
    with pytest.raises(TypeError):   # another dtype is another file
        build.build(program(real=torch.float64), kind="fast", folder=tmp_path)


def test_machine_without_a_compiler_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"needs a C\+\+ compiler.*-m pip install ziglang"):
        build.find_compiler.__wrapped__()


def test_windows_is_told_to_use_wsl(monkeypatch):
    monkeypatch.setattr(build.sys, "platform", "win32")
    with pytest.raises(RuntimeError, match="Run the course in WSL"):
        build.find_compiler.__wrapped__()


def test_compiler_of_the_wheel_is_used_where_there_is_no_other(monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: name == "ziglang")
    answer = lambda command, **_: subprocess.CompletedProcess(command, 0, "clang version 99")
    monkeypatch.setattr(build.subprocess, "run", answer)
    found = build.find_compiler.__wrapped__()
    assert found.command == (sys.executable, "-m", "ziglang",
                             "c++") and found.version == "clang version 99"
    # or it would build for this very machine, into a cache that others may share
    assert found.flags[0].startswith("-mcpu=")


# --- the compiler of the wheel --------------------------------------------------------------------

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
@pytest.mark.skipif(not importlib.util.find_spec("ziglang"),
                    reason="the wheel `ziglang` (400 MB) is not installed: python -m pip install "
                           "ziglang")
@pytest.mark.parametrize("name", [
    "test_trace", "test_tape", "test_planted_bugs", "test_debug_info", "test_machine"])
def test_proof_holds_with_the_compiler_of_the_wheel(name, tmp_path):
    """The emulator's proofs once more, with that compiler and no other, as on a laptop without
    g++."""
    (tmp_path / "hide_compilers.py").write_text(HIDE)
    folder = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider",
               "-p", "hide_compilers", str(folder / f"{name}.py")]
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder.parents[2],
                          env=dict(os.environ, PYTHONPATH=paths))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
