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
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"needs a C\+\+ compiler.*-m pip install ziglang"):
        build.find_compiler.__wrapped__()


def test_windows_is_told_to_use_wsl(monkeypatch):
    monkeypatch.setattr(build.sys, "platform", "win32")
    with pytest.raises(RuntimeError, match="Run the course in WSL"):
        build.find_compiler.__wrapped__()


def test_compiler_of_the_wheel_is_used_where_there_is_no_other(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: name == "ziglang")
    answer = lambda command, **_: subprocess.CompletedProcess(command, 0, "clang version 99")
    monkeypatch.setattr(build.subprocess, "run", answer)
    monkeypatch.setattr(build, "_problem_of", lambda compiler: "")
    found = build.find_compiler.__wrapped__()
    assert found.command == (sys.executable, "-m", "ziglang",
                             "c++") and found.version == "clang version 99"
    # or it would build for this very machine, into a cache that others may share
    assert found.flags[0].startswith("-mcpu=")


# --- compilers that are found and of no use -------------------------------------------------------


def fake(folder, name, script):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


OLD = """case "$*" in
*--version*) echo 'g++ (Old) 7.5.0';;
*) echo "g++: error: unrecognized command line option '-std=c++20'" >&2; exit 1;;
esac"""
NEW = """case "$*" in
*--version*) echo 'g++ (New) 13.1.0';;
*) while [ "$1" != -o ]; do shift; done; echo made > "$2";;
esac"""
ONLY_ASKS = "echo 'xcrun: error: invalid active developer path' >&2; exit 1"
NOTHING = "exit 0"


@pytest.fixture
def folders(monkeypatch, tmp_path):
    """Two folders on PATH, no other compiler, and an empty cache."""
    # with the commands that the scripts call
    monkeypatch.setenv("PATH", os.pathsep.join(str(tmp_path / name) for name in "ab"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    return tmp_path / "a", tmp_path / "b"


@pytest.mark.parametrize("useless", [OLD, ONLY_ASKS, "not a script"])
@pytest.mark.parametrize(("folder", "name"), [(1, "g++"), (0, "clang++"), (1, "c++"),
                                              (0, "g++-13"), (1, "clang++-17")])
def test_old_compiler_first_on_the_path_gives_way_to_a_newer_one(folders, useless, folder, name):
    fake(folders[0], "g++", useless)
    newer = fake(folders[folder], name, NEW)
    assert build.find_compiler.__wrapped__().command == (newer,)


def test_newest_of_those_with_a_version_is_tried_first(folders):
    for version in (9, 13, 12):
        fake(folders[0], f"g++-{version}", NEW)
    assert build.find_compiler.__wrapped__().command == (str(folders[0] / "g++-13"),)


def test_only_old_compilers_are_named_with_their_own_words_and_the_cure(folders):
    paths = [fake(folders[0], "g++", OLD), fake(folders[1], "clang++", ONLY_ASKS)]
    with pytest.raises(RuntimeError) as refused:
        build.find_compiler.__wrapped__()
    words = str(refused.value)
    assert f"{paths[0]} (g++ (Old) 7.5.0: g++: error: unrecognized command line option" in words
    assert f"{paths[1]} (xcrun: error: invalid" in words and "pip install ziglang" in words


def test_compiler_is_tried_once_and_then_known(folders, monkeypatch):
    fake(folders[0], "g++", NEW)
    build.find_compiler.__wrapped__()
    fake(folders[0], "g++", NEW.replace("echo made", "exit 1; echo made"))
    assert build.find_compiler.__wrapped__().version == "g++ (New) 13.1.0\n"


def test_folder_of_the_path_that_is_missing_or_unreadable_is_passed_over(folders, monkeypatch,
                                                                         tmp_path):
    newer = fake(folders[1], "g++-13", NEW)
    listed, locked = Path.iterdir, tmp_path / "locked"

    def iterdir(path):
        if path == locked:
            raise PermissionError(path)
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    searched = ["/no/such/folder", str(locked), newer, str(folders[1])]
    monkeypatch.setenv("PATH", os.pathsep.join(searched))
    assert build.find_compiler.__wrapped__().command == (newer,)


@pytest.mark.parametrize(("script", "words"), [
    ("kill -9 $$", "the compiler was killed while it compiled doubled.cu, which happens when "
                   "memory runs out"),
    ("echo 'g++: fatal error: Killed signal terminated program cc1plus' >&2; exit 1", "was killed"),
    ("echo 'fatal error: error writing to /tmp/x.s: No space left on device' >&2; exit 1",
     "the disk was full .* set TMPDIR"),
])
def test_compiler_that_the_machine_stops_is_no_error_of_the_source(tmp_path, monkeypatch, script,
                                                                  words):
    path = fake(tmp_path, "g++", script)
    stopped = build.CxxCompiler(command=(path,), linker=(path,), flags=(), version="stopped")
    monkeypatch.setattr(build, "find_compiler", lambda: stopped)
    folder = tmp_path / "cache"
    with pytest.raises(RuntimeError, match=words) as error:
        build.build(program(), kind="fast", folder=folder)
    assert not isinstance(error.value, CompileError) and list(folder.iterdir()) == []


# --- the compiler of the wheel --------------------------------------------------------------------

# A plugin of pytest: hides every other compiler, and the programs that could read a compiled file.
HIDE = """
import shutil
which = shutil.which
hidden = {"g++", "gcc", "clang++", "clang", "c++", "cc", "nm", "addr2line"}
shutil.which = lambda name, *args, **given: None if name in hidden else which(name, *args, **given)

def pytest_collection_modifyitems():
    from llama_from_scratch.kernels.emulator import build
    build._programs = lambda: []
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
