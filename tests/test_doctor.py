import dataclasses
import subprocess
import sys

import pytest

from llama_from_scratch import doctor
from llama_from_scratch.kernels.emulator.build import find_compiler

HEALTHY = doctor.Machine(
    python=(3, 12, 4),
    n_bits=64,
    torch=doctor.Torch(version="2.13.0+cpu", cuda=None, devices=()),
    n_memory_bytes=16 * 10**9,
    n_free_bytes=50 * 10**9,
    gpus=(),
    cxx="/usr/bin/g++: g++ 12.2.0",
    no_cxx="",
    nvcc=None,
    prefix="/home/me/llama/.venv",
    kernel="/home/me/llama/.venv",
    missing={"": (), "notebooks": (), "test": ()},
)
CUDA = doctor.Torch(version="2.13.0", cuda="13.0", devices=())


def judged(**changes):
    return {finding.name: finding for finding in doctor.judge(dataclasses.replace(HEALTHY, **changes))}


def test_healthy_machine_without_a_gpu_is_ok_in_every_respect():
    assert all(finding.is_ok for finding in judged().values())
    assert judged()["GPU"].found.endswith("everything runs on the CPU")


@pytest.mark.parametrize(
    ("changes", "name", "found", "cure"),
    [
        ({"python": (3, 10, 1)}, "Python", "3.10.1", "3.11 or newer"),
        ({"n_bits": 32}, "Python", "32 bit", "64-bit"),
        ({"torch": "ModuleNotFoundError: No module named 'torch'"}, "PyTorch", "No module named", "start.py"),
        ({"torch": doctor.Torch(version="2.5.1", cuda=None, devices=())}, "PyTorch", "2.5.1", "2.6 or newer"),
        ({"n_memory_bytes": 2 * 10**9}, "memory", "2.0 GB, 4 GB are needed", "one notebook at a time"),
        ({"n_free_bytes": 10**8}, "free disk here", "0.1 GB, 1 GB are needed", "make room"),
        ({"gpus": ("H200, 570.1",)}, "GPU", "H200, 570.1", "without --cpu"),
        ({"gpus": ("H200, 470.1",), "torch": CUDA}, "GPU", "cannot use", "driver to one for CUDA 13.0"),
        ({"gpus": ("H200, 470.1",), "torch": "OSError: libcudart"}, "GPU", "cannot use", "mend PyTorch"),
        ({"kernel": "/usr"}, "Jupyter kernel", "runs /usr, while this is /home/me", "kernelspec remove python3"),
        ({"kernel": "NoSuchKernel: python3"}, "Jupyter kernel", "none: NoSuchKernel", "start.py"),
        ({"missing": None}, "packages of the library", "not installed", "start.py"),
        (
            {"missing": {"": (), "notebooks": ("jupyterlab", "ipywidgets"), "test": ()}},
            "packages of the notebooks",
            "missing: jupyterlab, ipywidgets",
            "start.py",
        ),
    ],
)
def test_broken_machine_gets_a_finding_and_its_cure(changes, name, found, cure):
    finding = judged(**changes)[name]
    assert not finding.is_ok and found in finding.found and cure in finding.cure


def test_every_finding_that_is_not_ok_has_a_cure():
    worst = judged(
        python=(3, 9, 0), torch="gone", n_memory_bytes=1, n_free_bytes=1, gpus=("H200, 1",), kernel="gone", missing=None
    )
    assert sum(not finding.is_ok for finding in worst.values()) == 9
    assert all(finding.cure for finding in worst.values() if not finding.is_ok)


def test_gpu_that_pytorch_uses_is_named_with_its_driver():
    torch = doctor.Torch(version="2.13.0", cuda="13.0", devices=("NVIDIA H200",))
    assert judged(torch=torch, gpus=("NVIDIA H200, 580.65",))["GPU"].found == "NVIDIA H200 (driver 580.65)"


def test_what_only_tests_and_kernels_need_is_no_defect():
    words = "RuntimeError: the CUDA emulator needs a C++ compiler: python -m pip install ziglang"
    found = judged(cxx=None, no_cxx=words, gpus=(), missing={"": (), "notebooks": (), "test": ("nbval",)})
    assert found["C++ compiler"].is_ok and found["C++ compiler"].cure == \
        "for the chapters on kernels: the CUDA emulator needs a C++ compiler: python -m pip install ziglang"
    assert "not known" in judged(cxx=None, no_cxx="ImportError", torch="gone")["C++ compiler"].found
    assert found["packages of the tests"].is_ok and "nbval" in found["packages of the tests"].found


def test_unknown_amounts_are_said_to_be_unknown():
    found = judged(n_memory_bytes=None, n_free_bytes=None)
    assert found["memory"].found == found["free disk here"].found == "could not be measured"


def test_report_finds_this_environment_and_its_kernel():
    found = {finding.name: finding for finding in doctor.report()}
    assert found["PyTorch"].found.startswith(__import__("torch").__version__)
    assert found["Jupyter kernel"] == doctor.Finding(name="Jupyter kernel", is_ok=True, found=f"this environment, {sys.prefix}")


def test_compiler_is_the_one_that_the_emulator_uses():
    found = {finding.name: finding for finding in doctor.report()}["C++ compiler"]
    try:
        compiler = find_compiler()
    except RuntimeError as problem:
        assert str(problem) in found.cure
    else:
        assert found.found == f"{' '.join(compiler.command)}: {compiler.version.splitlines()[0]}" and not found.cure


def test_machine_without_a_compiler_is_told_the_emulators_own_cure(monkeypatch):
    monkeypatch.setenv("PATH", "")
    hide = "import importlib.util as u\nfind = u.find_spec\n"
    hide += "u.find_spec = lambda name: None if name == 'ziglang' else find(name)"
    monkeypatch.setattr(doctor, "ASK_COMPILER", hide + doctor.ASK_COMPILER)
    found = {finding.name: finding for finding in doctor.report()}["C++ compiler"]
    assert found.is_ok and found.found.startswith("none") and "-m pip install ziglang" in found.cure


def test_foreign_kernel_of_the_user_is_seen(tmp_path, monkeypatch):
    kernel = tmp_path / "kernels" / "python3"
    kernel.mkdir(parents=True)
    foreign = sys.base_prefix + "/bin/python3"
    (kernel / "kernel.json").write_text(f'{{"argv": ["{foreign}", "-m", "ipykernel_launcher"], "display_name": "x"}}')
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    assert doctor.look().kernel == sys.base_prefix


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("raise OSError('libcudart.so.13: cannot open')", "OSError: libcudart.so.13: cannot open"),
        ("import os; os.abort()", "its process ended with status"),
        ("print('no json')", "its process ended with status 0"),
    ],
)
def test_program_that_crashes_or_says_nothing_is_a_reason_not_an_exception(program, why):
    answer, words = doctor._ask([sys.executable, "-c", program])
    assert answer is None and words.startswith(why)


def test_missing_program_and_endless_program_are_reasons_too(monkeypatch):
    assert doctor._ask(["no-such-program"])[0] is None and doctor._output(["no-such-program"]) is None
    monkeypatch.setattr(doctor, "TIMEOUT_S", 0.5)
    assert "timed out" in doctor._ask([sys.executable, "-c", "import time; time.sleep(60)"])[1]


def test_missing_packages_are_found_by_group(monkeypatch):
    needs = ["torch>=2.6", "no-such-core", "no_such.lab<5; extra == 'notebooks'", "x; extra == 'dev'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: needs)
    assert doctor._missing_packages() == {"": ("no-such-core",), "notebooks": ("no_such.lab",), "test": ()}


def test_project_that_is_not_installed_is_a_finding(monkeypatch):
    def requires(name):
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "requires", requires)
    assert doctor._missing_packages() is None


def test_doctor_needs_no_torch_to_say_that_torch_is_missing():
    code = "import sys; sys.modules['torch'] = None; from llama_from_scratch import doctor; print(len(doctor.report()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "11", done.stderr
