import dataclasses
import sys

import pytest

from llama_from_scratch.commands import machine
from llama_from_scratch.commands.machine import Machine, Torch
from llama_from_scratch.commands.symptoms import Symptom, judge
from llama_from_scratch.kernels.emulator.build import find_compiler

HEALTHY = Machine(
    python=(3, 12, 4),
    n_bits=64,
    torch=Torch(version="2.13.0+cpu", cuda=None, devices=()),
    n_memory_bytes=16 * 10**9,
    n_free_bytes=50 * 10**9,
    gpus=(),
    cxx="/usr/bin/g++: g++ 12.2.0",
    no_cxx="",
    cache="/home/me/.cache/llama_from_scratch/kernels",
    no_cache="",
    nvcc=None,
    prefix="/home/me/llama/.venv",
    kernel="/home/me/llama/.venv",
    missing={"": (), "notebooks": (), "test": ()},
)
CUDA = Torch(version="2.13.0", cuda="13.0", devices=())


def judged(**changes):
    return by_name(dataclasses.replace(HEALTHY, **changes))


def by_name(measured):
    return {symptom.name: symptom for symptom in judge(measured)}


def test_healthy_machine_without_a_gpu_is_ok_in_every_respect():
    assert all(symptom.is_ok for symptom in judged().values())
    assert judged()["GPU"].found.endswith("everything runs on the CPU")


@pytest.mark.parametrize(("changes", "name", "found", "cure"), [
    ({"python": (3, 10, 1)}, "Python", "3.10.1", "3.11 or newer"),
    ({"n_bits": 32}, "Python", "32 bit", "64-bit"),
    ({"torch": "ModuleNotFoundError: No module named 'torch'"}, "PyTorch", "No module named",
     "start.py"),
    ({"torch": Torch(version="2.5.1", cuda=None, devices=())}, "PyTorch", "2.5.1", "2.6 or newer"),
    ({"n_memory_bytes": 2 * 10**9}, "memory", "2.0 GB, 4 GB are needed", "one notebook at a time"),
    ({"n_free_bytes": 10**8}, "free disk here", "0.1 GB, 1 GB are needed", "free some space"),
    ({"gpus": ("H200, 570.1",)}, "GPU", "H200, 570.1", "without --cpu"),
    ({"gpus": ("H200, 470.1",), "torch": CUDA}, "GPU", "cannot use", "driver to one for CUDA 13.0"),
    ({"gpus": ("H200, 470.1",), "torch": "OSError: libcudart"}, "GPU", "cannot use",
     "fix PyTorch"),
    ({"no_cache": "its disk is mounted noexec"}, "compiled kernels",
     "not kept in /home/me/.cache/llama_from_scratch/kernels (its disk is mounted noexec)",
     "XDG_CACHE_HOME"),
    ({"kernel": "/usr"}, "Jupyter kernel", "runs /usr, but this is /home/me",
     "kernelspec remove python3"),
    ({"kernel": "NoSuchKernel: python3"}, "Jupyter kernel", "none: NoSuchKernel", "start.py"),
    ({"missing": None}, "packages of the library", "not installed", "start.py"),
    ({"missing": {"": (), "notebooks": ("jupyterlab", "ipywidgets"), "test": ()}},
     "packages of the notebooks", "missing: jupyterlab, ipywidgets", "start.py"),
])
def test_broken_machine_gets_a_symptom_and_its_cure(changes, name, found, cure):
    symptom = judged(**changes)[name]
    assert not symptom.is_ok and found in symptom.found and cure in symptom.cure


def test_every_symptom_that_is_not_ok_has_a_cure():
    worst = judged(python=(3, 9, 0), torch="gone", n_memory_bytes=1, n_free_bytes=1,
                   gpus=("H200, 1",), kernel="gone", missing=None)
    assert sum(not symptom.is_ok for symptom in worst.values()) == 9
    assert all(symptom.cure for symptom in worst.values() if not symptom.is_ok)


def test_gpu_that_pytorch_uses_is_named_with_its_driver():
    torch = Torch(version="2.13.0", cuda="13.0", devices=("NVIDIA H200",))
    found = judged(torch=torch, gpus=("NVIDIA H200, 580.65",))["GPU"].found
    assert found == "NVIDIA H200 (driver 580.65)"


def test_what_only_tests_and_kernels_need_is_no_defect():
    words = "RuntimeError: the CUDA emulator needs a C++ compiler: python -m pip install ziglang"
    found = judged(cxx=None, no_cxx=words, gpus=(),
                   missing={"": (), "notebooks": (), "test": ("nbval",)})
    assert found["C++ compiler"].is_ok and found["C++ compiler"].cure == (
        "for the chapters on kernels: the CUDA emulator needs a C++ compiler: "
        "python -m pip install ziglang")
    without_torch = judged(cxx=None, no_cxx="ImportError", cache="", torch="gone")
    assert without_torch["compiled kernels"].is_ok
    assert "not known" in without_torch["C++ compiler"].found
    assert found["packages of the tests"].is_ok and "nbval" in found["packages of the tests"].found


def test_unknown_amounts_are_reported_as_unknown():
    found = judged(n_memory_bytes=None, n_free_bytes=None)
    assert found["memory"].found == found["free disk here"].found == "could not be measured"


def test_this_environment_and_its_kernel_are_found():
    found = by_name(machine.look())
    assert found["PyTorch"].found.startswith(__import__("torch").__version__)
    assert found["Jupyter kernel"] == Symptom(name="Jupyter kernel", is_ok=True,
                                              found=f"this environment, {sys.prefix}")


def test_compiler_is_the_one_that_the_emulator_uses():
    found = by_name(machine.look())["C++ compiler"]
    try:
        compiler = find_compiler()
    except RuntimeError as problem:
        assert str(problem) in found.cure
    else:
        first_line = compiler.version.splitlines()[0]
        assert found.found == f"{' '.join(compiler.command)}: {first_line}" and not found.cure


def test_machine_without_a_compiler_gets_the_emulators_own_cure(monkeypatch):
    monkeypatch.setenv("PATH", "")
    hide = "import importlib.util as u\nfind = u.find_spec\n"
    hide += "u.find_spec = lambda name: None if name == 'ziglang' else find(name)"
    monkeypatch.setattr(machine, "ASK_COMPILER", hide + machine.ASK_COMPILER)
    found = by_name(machine.look())["C++ compiler"]
    assert found.is_ok and found.found.startswith("none")
    assert "-m pip install ziglang" in found.cure


def test_folder_of_compiled_kernels_that_others_can_write_is_told_with_the_cure(monkeypatch,
                                                                                tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "llama_from_scratch" / "kernels"
    assert by_name(machine.look())["compiled kernels"].found == f"kept in {folder}"
    folder.chmod(0o777)
    found = by_name(machine.look())["compiled kernels"]
    # asking for a compiler has tried one, and has closed the folder
    assert found.is_ok and not folder.stat().st_mode & 0o022


def test_old_compiler_is_told_with_its_own_words(monkeypatch, tmp_path):
    old = tmp_path / "g++"
    old.write_text("#!/bin/sh\n[ $1 = --version ] && echo 'g++ 7.5.0' && exit\n"
                   "echo \"g++: error: unrecognized command line option '-std=c++20'\" >&2\n"
                   "exit 1\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    hide = "import importlib.util as u\nfind = u.find_spec\n"
    hide += "u.find_spec = lambda name: None if name == 'ziglang' else find(name)"
    monkeypatch.setattr(machine, "ASK_COMPILER", hide + machine.ASK_COMPILER)
    cure = by_name(machine.look())["C++ compiler"].cure
    assert f"{old} (g++ 7.5.0: g++: error: unrecognized" in cure and "g++ 11 or newer" in cure
