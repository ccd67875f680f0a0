"""What the benchmark does where there is no GPU, and the table it prints."""

import json

import pytest
import torch

from llama_from_scratch.kernels.trial import bench, compare

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


def row(**changes):
    time = bench.Time(median=100.0, p20=99.0, p80=101.0)
    fields = {"kernel": "rms_norm forward", "size": (16384, 4096), "dtype": "bfloat16",
              "n_bytes": 268_435_456, "time": time,
              "eager": bench.Time(median=400.0, p20=399.0, p80=401.0), "compiled": None,
              "library": None, "library_name": "",
              "error_ratio": 0.75, "is_right": True}
    return bench.BenchRow(**{**fields, **changes})


def test_the_share_is_of_what_a_copy_moves_in_the_same_time():
    assert row().share(4e12) == pytest.approx(268_435_456 / 100e-6 / 4e12)


def test_the_table_shows_rivals_as_times_over_ours_and_marks_what_is_wrong():
    text = bench.table([row(), row(kernel="rope forward", eager=None, is_right=False)], 4e12)
    header, first, second, last = text.splitlines()
    assert "x best rival" in header
    assert first.split()[-6:] == ["67", "400", "-", "-", "4.00", "0.75"]
    assert second.split()[-2:] == ["0.75", "WRONG"] and "4000 GB/s" in last


@NO_GPU
def test_without_a_gpu_the_bench_shows_what_the_compiler_knows_and_how_to_get_the_rest(
    capsys, monkeypatch
):
    # test_resources compiles the real one
    monkeypatch.setattr(bench.resources, "table", lambda: "the table of registers")
    assert bench.main([]) == 0
    text = capsys.readouterr().out
    assert "the table of registers" in text and "python3 start.py gpu --out" in text


def test_a_row_can_be_written_as_json():
    assert json.loads(json.dumps(bench.as_data(row())))["time"]["median"] == 100.0


def test_a_rehearsal_on_the_emulator_fills_every_row(monkeypatch):
    """All that a GPU run does but for the clock, which is all that a GPU adds: the first one must
    not fail for a typo."""
    calls = []

    def once(prepare, n_repeats=1):
        for call in prepare():
            call()
            calls.append(call)
        return bench.Time(median=2.0, p20=1.0, p80=3.0)

    small = {"rms_norm": (6, 64), "add_rms_norm": (6, 64), "rope": (1, 6, 4, 2, 16),
             "swiglu": (6, 64)}
    monkeypatch.setattr(bench, "time_graph", once)
    monkeypatch.setattr(bench, "COPY_BYTES", 1024)
    monkeypatch.setattr(bench, "L2_BYTES", 1024)
    monkeypatch.setattr(bench, "N_PARAMETERS", 16 * 8**2)
    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setattr(compare, "OPERATIONS", tuple(
        compare.Operation(**{**vars(operation), "large": small[operation.name]})
        for operation in compare.OPERATIONS))
    said = []
    results = json.loads(json.dumps(bench.run(torch.device("cpu"), say=said.append)))
    rows = {f"{row['kernel']} {row['dtype']}": row for row in results["rows"]}
    assert len(rows) == 2 * 4 + 2 * 2 and all(row["is_right"] for row in rows.values())
    assert all(row["eager"] for name, row in rows.items() if "clipped" not in name)
    assert rows["rms_norm backward bfloat16"]["library"]
    assert not rows["rope forward bfloat16"]["library"]
    n_bytes = 28 * 16 * (8 + 64)
    assert rows["adamw bfloat16"]["n_bytes"] == rows["adamw float32"]["n_bytes"] == n_bytes
    assert not any("could not be timed" in line for line in said), said
    assert len(calls) > 40 and "adamw, clipped bfloat16" in said[-1]
