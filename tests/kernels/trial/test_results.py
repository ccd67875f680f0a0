"""A results file grows by parts: a new run replaces what it measured, and nothing else."""

import json

import pytest

from llama_from_scratch.kernels.trial import results
from llama_from_scratch.kernels.trial.parts import ITSELF

OLD, NEW = ({"date": f"2026-12-0{day}", "torch": "2.11"} for day in (1, 2))


def row(kernel, **ratios):
    return {"kernel": kernel, "dtype": "bfloat16", "size": [2, 3], "ratios": ratios,
            "rivals": [{"name": name} for name in ratios]}


def add(report, versions, part="bench", **statuses):
    outcomes = {step: {"status": status, "why": "for lack of time", "rows": [row(step)]}
                for step, status in statuses.items()}
    return results.merged(report, machine={"device": "NVIDIA H200"}, part=part, outcomes=outcomes,
                          versions=versions)


def test_a_second_run_of_a_part_keeps_the_other_parts_and_what_it_had_no_time_for(tmp_path):
    path = results.path_for(tmp_path, "NVIDIA H200 (141 GB)")
    assert path.name == "gpu-nvidia-h200-141-gb.json"
    report = results.read(path)
    report = add(report, OLD, part="conformance", mma="wrong")
    report = add(report, OLD, norm="right", rope="right", gone="right", never="not run")
    report = add(report, NEW, norm="failed", rope="not run", never="not run")
    results.write(report, path)
    assert results.read(path) == report == json.loads(path.read_text())
    assert report["parts"]["conformance"]["mma"]["versions"] == OLD
    steps = report["parts"]["bench"]
    assert [*steps] == ["norm", "rope", "never"], "a step that no longer exists stays"
    assert steps["norm"]["status"] == "failed" and steps["norm"]["versions"] == NEW
    assert steps["rope"]["status"] == "right" and steps["rope"]["versions"] == OLD
    assert steps["rope"]["not_run_again"] == "2026-12-02, for lack of time"
    assert steps["never"]["status"] == "not run" and "versions" not in steps["never"]


def test_a_part_that_could_not_list_its_steps_keeps_what_it_found_before():
    report = add({"machine": {}, "parts": {}}, OLD, norm="right", rope="right")
    assert add(report, NEW) == report
    failed = add(report, NEW, **{ITSELF: "failed"})["parts"]["bench"]
    assert [*failed] == ["norm", "rope", ITSELF] and failed["norm"]["versions"] == OLD
    assert [*add({"machine": {}, "parts": {"bench": failed}}, NEW, norm="right")["parts"]["bench"]
            ] == ["norm"]


def test_rows_carry_the_versions_that_measured_them():
    report = add(add(results.read(results.path_for(results.Path("nowhere"), "x")), OLD, a="right"),
                 NEW, part="attention", b="right")
    assert results.rows(report) == [row("a") | {"versions": OLD}, row("b") | {"versions": NEW}]


def test_rows_of_one_kernel_with_other_rivals_become_one_row():
    steps = {name: {"status": "right", "rows": [row("norm", **ratios), row(name)]}
             for name, ratios in {"first": {"eager": 4.0}, "second": {"compiled": 1.5}}.items()}
    report = results.merged({"machine": {}, "parts": {}}, machine={}, part="bench",
                            outcomes=steps, versions=NEW)
    norm, *others = results.rows(report)
    assert norm == row("norm", eager=4.0, compiled=1.5) | {"versions": NEW}
    assert [each["kernel"] for each in others] == ["first", "second"]


@pytest.mark.parametrize("text", ["{", "[]", '{"machine": {}, "rows": []}'])
def test_a_file_of_another_kind_is_refused_and_not_overwritten(tmp_path, text):
    path = tmp_path / "gpu-x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="machine and parts.*gpu-x.json is not. Move it away"):
        results.read(path)
    assert path.read_text() == text
