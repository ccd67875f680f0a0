"""What the benchmark and the GPU check do where there is no GPU, and the table they print."""

import json
import subprocess
import sys

import pytest
import torch

from llama_from_scratch.kernels import bench, gpu

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


def row(**changes):
    time = bench.Time(median=100.0, p20=99.0, p80=101.0)
    fields = {"kernel": "rms_norm forward", "size": (16384, 4096), "dtype": "bfloat16", "n_bytes": 268_435_456, "time": time,
              "eager": bench.Time(median=400.0, p20=399.0, p80=401.0), "compiled": None, "library": None, "library_name": "",
              "error_ratio": 0.75, "is_right": True}
    return bench.Row(**{**fields, **changes})


def test_the_share_is_of_what_a_copy_moves_in_the_same_time():
    assert row().share(4e12) == pytest.approx(268_435_456 / 100e-6 / 4e12)


def test_the_table_shows_rivals_as_times_over_ours_and_marks_what_is_wrong():
    text = bench.table([row(), row(kernel="rope forward", eager=None, is_right=False)], 4e12)
    header, first, second, last = text.splitlines()
    assert "x best rival" in header
    assert first.split()[-6:] == ["67", "400", "-", "-", "4.00", "0.75"]
    assert second.split()[-2:] == ["0.75", "WRONG"] and "4000 GB/s" in last


@NO_GPU
def test_without_a_gpu_the_bench_shows_what_the_compiler_knows_and_how_to_get_the_rest(capsys, monkeypatch):
    monkeypatch.setattr(bench.resources, "table", lambda: "the table of registers")  # test_resources compiles the real one
    assert bench.main([]) == 0
    text = capsys.readouterr().out
    assert "the table of registers" in text and "python3 start.py gpu --out" in text


@NO_GPU
def test_without_a_gpu_the_check_says_so_and_fails(tmp_path, capsys):
    assert gpu.main(["--out", str(tmp_path / "results")]) == 2
    assert "finds no CUDA device" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


@NO_GPU
def test_the_module_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "llama_from_scratch.kernels.gpu"], capture_output=True, text=True)
    assert done.returncode == 2 and "--out" in done.stderr


def test_a_row_can_be_written_as_json():
    assert json.loads(json.dumps(bench.as_data(row())))["time"]["median"] == 100.0
