"""The runtime compiler, which needs no GPU: real cubins here, and what it says when it cannot."""

import importlib.util
from pathlib import Path

import pytest
import torch

from llama_from_scratch.kernels.machinery import nvrtc
from llama_from_scratch.kernels.machinery.source import FOLDER, REAL_NAMES, Program, Source

TEXT = """#include "common.cuh"
extern "C" __global__ void __launch_bounds__(256) scale_rows(
    const real* x, real* y, int n, float factor)
{
    int i = (blockIdx.x * blockDim.x + threadIdx.x) * VECTOR;
    if (i >= n) return;
    Vector v = load(x + i);
    for (int k = 0; k < VECTOR; k++) v.at[k] = narrow(widen(v.at[k]) * factor);
    store(y + i, v);
}
"""


def program(text=TEXT, real=torch.bfloat16):
    headers = {"common.cuh": (FOLDER / "common.cuh").read_text()}
    return Program(source=Source(name="scale_rows", text=text, headers=headers), real=real)


@pytest.fixture(scope="module")
def compiler():
    try:
        return nvrtc.compiler()
    except RuntimeError as error:
        pytest.skip(str(error))


def test_a_missing_compiler_is_reported_with_the_places_searched_and_the_cure(monkeypatch):
    monkeypatch.setattr(nvrtc, "candidates",
                        lambda major: iter([Path(f"/nowhere/nvrtc.so.{major}"), Path("libnot.so")]))
    with pytest.raises(RuntimeError, match=r"no NVRTC.*/nowhere.*pip install "
                                           r"'nvidia-cuda-nvrtc==\d+\.\*'"):
        nvrtc.compiler.__wrapped__()


def test_the_compiler_is_sought_only_for_the_cuda_major_of_this_pytorch(monkeypatch):
    asked = []
    monkeypatch.setattr(nvrtc, "candidates", lambda major: asked.append(major) or iter(()))
    for version, majors in (("12.8", [12]), ("13.0", [13]), (None, [13, 12])):
        monkeypatch.setattr(torch.version, "cuda", version)
        with pytest.raises(RuntimeError,
                           match=f"of CUDA {' or '.join(map(str, majors))} was found"):
            nvrtc.compiler.__wrapped__()
        assert asked == majors
        asked.clear()


def test_the_wheels_come_before_the_toolkit_and_the_loader_comes_last(monkeypatch, tmp_path):
    class Namespace:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: Namespace)
    paths = list(nvrtc.candidates(12))
    assert paths[:2] == [tmp_path / "cu12/lib/libnvrtc.so.12",
                         tmp_path / "cuda_nvrtc/lib/libnvrtc.so.12"]
    assert paths[-1] == Path("libnvrtc.so.12")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert tmp_path not in {path.parents[1] for path in nvrtc.candidates(12) if path.is_absolute()}


@pytest.mark.parametrize("real", REAL_NAMES, ids=str)
def test_a_program_compiles_to_machine_code_that_holds_its_entry_point(compiler, real):
    compiled = compiler.compile(program(real=real), "sm_90")
    assert compiled.cubin[:4] == b"\x7fELF" and b"scale_rows" in compiled.cubin
    assert "Used" in compiled.log and "registers" in compiled.log and "warning" not in compiled.log


def test_an_error_in_a_source_comes_with_the_file_the_line_and_the_line_s_text(compiler):
    with pytest.raises(nvrtc.CompileError) as caught:
        compiler.compile(program(TEXT.replace("* factor", "* facter")), "sm_90")
    message = str(caught.value)
    assert 'scale_rows.cu(8): error: identifier "facter" is undefined' in message
    assert "widen(v.at[k]) * facter" in message and "sm_90 with real = bf16" in message
    assert compiler.compile(program(), "sm_90").cubin, "the next source compiles as before"


def test_an_error_in_a_header_comes_with_the_header_s_name(compiler):
    broken = program().source.replace("return widen(narrow(x));", "return widen(narrow(x))")
    with pytest.raises(nvrtc.CompileError, match=r"common\.cuh\(\d+\): error: expected a \"?;"):
        compiler.compile(Program(source=broken, real=torch.float32), "sm_90")


def test_a_missing_header_is_named(compiler):
    with pytest.raises(nvrtc.CompileError, match="nowhere.cuh"):
        compiler.compile(program('#include "nowhere.cuh"\n' + TEXT), "sm_90")


def test_an_architecture_that_the_compiler_does_not_know_is_an_error(compiler):
    with pytest.raises(nvrtc.CompileError, match="sm_42"):
        compiler.compile(program(), "sm_42")


def test_the_disk_holds_one_file_per_source_header_dtype_and_architecture(
    compiler, tmp_path, monkeypatch
):
    header = Program(source=program().source.replace("// ---- conversions", "// ---- Conversions"),
                     real=torch.bfloat16)
    variants = [(program(), "sm_90"), (program(real=torch.float16), "sm_90"), (program(), "sm_80"),
                (program(TEXT.replace("i >= n", "i > n")), "sm_90"), (header, "sm_90")]
    codes = [compiler.cubin(each, architecture, folder=tmp_path) for each, architecture in variants]
    assert len(list(tmp_path.iterdir())) == len(variants)

    # from here on, whatever is not found on disk fails
    monkeypatch.setattr(compiler, "compile", None)
    assert [compiler.cubin(each, architecture, folder=tmp_path)
            for each, architecture in variants] == codes


@pytest.mark.parametrize("capability, architecture", [
    ((7, 5), "sm_75"), ((8, 6), "sm_86"), ((8, 9), "sm_89"), ((9, 0), "sm_90"),
    ((12, 9), "sm_121")])
def test_a_gpu_gets_the_newest_architecture_that_runs_on_it(compiler, capability, architecture):
    assert compiler.architecture(capability) == architecture


def test_a_source_for_one_gpu_gets_its_architecture_and_others_are_refused(compiler):
    hopper = Source(name="tiles", headers={}, text="// Tiles.\n// architectures: sm_90a\n")
    assert compiler.architecture((9, 0), hopper) == "sm_90a"
    for capability, words in (((8, 6), r"8\.6"), ((10, 0), r"10\.0")):
        with pytest.raises(ValueError, match=f"tiles.cu is for sm_90a only; the GPU has compute "
                                             f"capability {words}"):
            compiler.architecture(capability, hopper)


def test_a_source_for_newer_gpus_is_compiled_for_these_and_refused_for_older_ones(compiler):
    cores = Source(name="cores", headers={}, text="// Cores.\n// architectures: sm_80 and newer\n")
    assert compiler.architecture((8, 0), cores) == "sm_80"
    assert compiler.architecture((9, 0), cores) == "sm_90"
    with pytest.raises(ValueError, match=r"cores.cu is for sm_80 and newer; the GPU has compute "
                                         r"capability 7\.5"):
        compiler.architecture((7, 5), cores)


def test_an_old_gpu_and_one_from_the_future_are_refused_with_what_would_help(compiler):
    with pytest.raises(ValueError, match=r"compiles for \(7\.5, 8.*it has 6\.1\. Install a "
                                         r"PyTorch built for an older CUDA"):
        compiler.architecture((6, 1))
    with pytest.raises(ValueError, match=r"it has 99\.0\. Install a PyTorch built for a newer "
                                         r"CUDA"):
        compiler.architecture((99, 0))


def test_a_damaged_library_is_passed_over(monkeypatch, tmp_path):
    (tmp_path / "libnvrtc.so.13").write_text("not a library")
    monkeypatch.setattr(nvrtc, "candidates", lambda major: iter([tmp_path / "libnvrtc.so.13"]))
    with pytest.raises(RuntimeError, match="no NVRTC"):
        nvrtc.compiler.__wrapped__()
