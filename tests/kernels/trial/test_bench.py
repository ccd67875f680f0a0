"""What the benchmark does where there is no GPU, and the table it prints."""

import json
from functools import partial

import pytest
import torch

from llama_from_scratch.kernels.trial import bench, operations, timing
from llama_from_scratch.kernels.trial.attending import BY_RUNG
from llama_from_scratch.kernels.trial.operation import Operation, Rival
from llama_from_scratch.kernels.trial.pointwise import POINTWISE

CPU = torch.device("cpu")
SHEET = timing.Sheet(bytes_per_s=5e12, operations_per_s=1e15)
FLOORS = timing.Floors(copy_bytes_per_s=4e12, product_operations_per_s=8e14, sheet=SHEET)


def us(median, **changes):
    return timing.Time(median=median, p20=median - 1, p80=median + 1, **changes)


def row(**changes):
    rivals = (bench.RivalTime(name="eager", time=us(400.0)),
              bench.RivalTime(name="flash", time=None, complaint="wrong: output 0 is off by 2"),
              bench.RivalTime(name="cudnn", time=us(150.0, is_graph=False)))
    fields = {"kernel": "rms_norm forward", "size": (16384, 4096), "dtype": "bfloat16",
              "n_bytes": 268_435_456, "n_operations": 0.0, "time": us(100.0), "rivals": rivals,
              "floors": FLOORS, "error_ratio": 0.75, "is_right": True}
    return bench.BenchRow(**{**fields, **changes})


def test_the_share_is_of_what_a_copy_moves_in_the_same_time():
    assert row().share_of_copy == pytest.approx(268_435_456 / 100e-6 / 4e12)
    assert row().share_of_sheet == pytest.approx(268_435_456 / 100e-6 / 5e12)


def test_a_row_of_arithmetic_has_shares_of_a_product_and_of_the_data_sheet():
    product = row(n_operations=4e10)   # in 100 us
    assert product.operations_per_s == pytest.approx(4e14)
    assert product.share_of_product == pytest.approx(0.5)
    assert product.share_of_sheet == pytest.approx(0.4)
    unknown = timing.Floors(**{**vars(FLOORS), "sheet": None})
    assert row(floors=unknown).share_of_sheet is None


def test_the_table_shows_every_rival_by_name_and_marks_what_is_wrong():
    slow = row(kernel="loss forward and backward", n_operations=2.4e13, time=us(40_000.0),
               rivals=(), is_right=False, extra_bytes=550_000_000)
    header, first, rivals, second, _ = bench.table([row(), slow]).splitlines()
    assert "% of data sheet" in header
    assert first.split()[4:] == ["100.0", "us", "2.68", "67", "-", "-", "54", "0.75", "-"]
    assert rivals.strip() == ("eager 400.0 us (4.00 x ours); flash: wrong: output 0 is off by 2; "
                              "cudnn 150.0 us (1.50 x ours, no graph)")
    assert second.split()[5:] == ["16384x4096", "40.00", "ms", "-", "-", "600", "75", "60", "0.75",
                                  "WRONG", "550"]


def test_a_row_can_be_written_as_json():
    data = json.loads(json.dumps(row().as_data()))
    assert data["time"]["median"] == 100.0 and data["ratios"] == {"eager": 4.0, "cudnn": 1.5}
    assert data["floors"]["sheet"]["bytes_per_s"] == 5e12 and data["rivals"][1]["time"] is None


def test_without_a_gpu_the_bench_shows_what_the_compiler_knows_and_how_to_get_the_rest(
    capsys, monkeypatch
):
    # test_resources compiles the real one
    monkeypatch.setattr(bench.resources, "table", lambda: "the table of registers")
    assert bench.main([]) == 0
    text = capsys.readouterr().out
    assert "the table of registers" in text and "python3 start.py gpu --out" in text


@pytest.fixture
def no_clock(monkeypatch):
    """Everything that a GPU run does except for the clock; returns what was called."""
    calls = []

    def once(prepare, n_repeats=1, is_graph=True):
        for call in prepare():
            call()
            calls.append(call)
        return us(2.0, is_graph=is_graph)

    monkeypatch.setattr(timing, "time_graph", once)
    monkeypatch.setattr(timing, "time_stream", partial(once, is_graph=False))
    monkeypatch.setattr(timing, "COPY_BYTES", 1024)
    monkeypatch.setattr(timing, "LOAD_SECONDS", 0.0)
    monkeypatch.setattr(timing, "PRODUCT_SIZE", 8)
    monkeypatch.setattr(timing, "L2_BYTES", 1024)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch, "compile", lambda function: function)
    return calls


SMALL = {
    "memory-bound": {"rms_norm": (6, 64), "add_rms_norm": (6, 64), "rope": (1, 6, 4, 2, 16),
                     "swiglu": (6, 64)},
    "attention": {"attention": (1, 8, 8, 4, 2, 64), "attention, heads of 64": (1, 8, 8, 2, 2, 64),
                  "attention, deterministic": (1, 8, 8, 2, 1, 64),
                  **{each.name: (1, 8, 8, 4, 2, 64) for each in BY_RUNG}},
    "decode": {"decode_attention": (2, 1024, 4, 2, 64),
               "decode_attention of one sequence": (1, 1024, 4, 2, 64)},
    "loss": {"linear_cross_entropy": (6, 16, 64)},
    "quantized": {"int8_linear": (1, 16, 64), "int4_linear": (1, 16, 128)},
}
# A CPU has only one of the backends, and another int4 product than a GPU.
NOT_HERE = {"cuDNN SDPA", "efficient SDPA, keys repeated", "_weight_int4pack_mm"}


def smaller(operation, **changes):
    size = SMALL[operation.part][operation.name]
    return Operation(**{**vars(operation), "large": size, "checked": None, **changes})


@pytest.mark.parametrize("part", SMALL)
def test_a_rehearsal_on_the_emulator_fills_every_row(part, no_clock, monkeypatch):
    """The first run on a GPU must not fail because of a typing error."""
    monkeypatch.setattr(bench, "N_PARAMETERS", 16 * 8**2)
    monkeypatch.setattr(bench, "OPERATIONS", tuple(map(smaller, operations.OPERATIONS)))
    said, rows = [], {}
    steps = bench.steps(CPU, part=part)
    own = ["adamw bfloat16", "adamw float32"] if part == "memory-bound" else []
    assert [step.name for step in steps] == [
        "floors", *SMALL[part], *own,
        *(f"{name}, torch.compile" for name in SMALL[part]
          if "rung" not in name and "determ" not in name)]
    for step in steps:
        found = step.run(said.append)
        assert not found.wrong
        for each in json.loads(json.dumps(found.data)).get("rows", ()):
            is_compiled = "torch.compile" in each["ratios"]
            assert is_compiled == step.name.endswith("torch.compile")
            if not is_compiled:
                rows[f"{each['kernel']} {each['dtype']}"] = each
    directions = {"memory-bound": 2, "attention": 2}.get(part, 1)
    assert len(rows) == directions * len(SMALL[part]) + 2 * len(own)
    for name, made in rows.items():
        assert made["is_right"]
        names = {each["name"] for each in made["rivals"]} - NOT_HERE
        assert {*made["ratios"]} == names and ("clipped" in name or "eager" in names), said
        assert (made["n_operations"] > 0) == (part in ("attention", "loss"))


def test_the_adamw_rows_count_28_bytes_per_parameter_and_name_their_rivals(no_clock, monkeypatch):
    monkeypatch.setattr(bench, "N_PARAMETERS", 16 * 8**2)
    for dtype in (torch.bfloat16, torch.float32):
        plain, clipped = (bench.adamw_row(dtype, max_norm=max_norm, floors=FLOORS, device=CPU,
                                          say=lambda text: None) for max_norm in (None, 1.0))
        assert plain.n_bytes == 28 * 16 * (8 + 64)
        assert clipped.n_bytes == plain.n_bytes + dtype.itemsize * 16 * (8 + 64)
        assert [*plain.ratios] == ["eager", "AdamW(fused=True), fp32"]
        assert [*clipped.ratios] == ["AdamW(fused=True), fp32"]


def test_extra_memory_is_the_peak_without_the_results(monkeypatch):
    whole = torch.zeros(100)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 1000)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 2500)
    # Two results in the same memory are counted once, and as all of it.
    calls = lambda: [lambda: (whole[:50], whole[50:60])]
    assert bench._extra_bytes(calls, torch.device("cuda")) == 2500 - 1000 - 400
    assert bench._extra_bytes(calls, CPU) is None


def rows_of(**changes):
    operation = smaller(POINTWISE[0], **changes)
    return [*bench.operation_rows(operation, floors=FLOORS, device=CPU, say=lambda text: None)]


def test_a_rival_that_is_wrong_or_fails_is_a_line_and_not_a_time(no_clock):
    def fails(x, weight):
        raise RuntimeError("no kernel for this\nand a long trace")

    plain = POINTWISE[0].plain
    rivals = (Rival(name="off", way=lambda x, weight: (1.1 * plain(x, weight)[0],)),
              Rival(name="none", way=fails), Rival(name="fine", way=plain))
    for made in rows_of(rivals=rivals):
        times = {each.name: each for each in made.rivals}
        assert times["off"].time is None and times["off"].complaint.startswith("wrong: ")
        assert "is off by 0.1 of its size" in times["off"].complaint
        assert times["none"].complaint == "RuntimeError: no kernel for this"
        assert times["fine"].time and made.is_right


def test_a_rival_that_no_graph_can_hold_is_timed_without_one(no_clock, monkeypatch):
    whole = timing.time_graph

    def refuses(prepare, n_repeats=1):
        if "F.rms" in said[-1]:
            raise RuntimeError("operation not permitted when stream is capturing")
        return whole(prepare)

    said = []
    monkeypatch.setattr(timing, "time_graph", refuses)
    operation = smaller(POINTWISE[0])
    for made in bench.operation_rows(operation, floors=FLOORS, device=CPU, say=said.append):
        graphs = {each.name: each.time.is_graph for each in made.rivals}
        assert graphs == {"eager": True, "F.rms_norm": False}


def test_a_kernel_of_one_pass_has_one_row_and_one_set_of_inputs(no_clock):
    (made,) = rows_of(is_one_pass=True, operations=lambda size: (100.0, 200.0))
    assert made.kernel == "rms_norm forward and backward" and made.n_operations == 300
    assert len(no_clock) == 1 + 2   # ours, eager, F.rms_norm, once each


def test_a_wrong_kernel_is_a_wrong_step(no_clock, monkeypatch):
    spoiled = lambda x, weight, emulate: (1.01 * POINTWISE[0].plain(x, weight)[0],)
    monkeypatch.setattr(bench, "OPERATIONS", (smaller(POINTWISE[0], fused=spoiled),))
    _, step, *_ = bench.steps(CPU, part="memory-bound")
    found = step.run(lambda text: None)
    assert found.wrong[0] == ("rms_norm forward bfloat16 is off from the exact result by "
                              "more than rounding") and len(found.data["rows"]) == 2
