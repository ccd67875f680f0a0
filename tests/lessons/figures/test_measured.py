"""The pictures of real runs: they draw what is in the files, and nothing where there are none."""

import json

import pytest

from llama_from_scratch.lessons import measured


def run(date="2026-11-20", us=100.0, n_operations=0.0):
    time = lambda median: {"median": median, "p20": median, "p80": median, "is_graph": True}
    row = {"kernel": "rms_norm forward", "dtype": "bfloat16", "size": [16384, 4096],
           "ratios": {"eager": 4.0, "F.rms_norm": 1.5}, "n_bytes": 268_435_456,
           "n_operations": n_operations, "time": time(us), "share_of_copy": 0.67,
           "share_of_product": 0.5,
           "floors": {"copy_bytes_per_s": 4e12, "product_operations_per_s": 8e14},
           "rivals": [{"name": "eager", "time": time(400.0), "complaint": ""},
                      {"name": "torch.compile", "time": None, "complaint": "no Triton"},
                      {"name": "F.rms_norm", "time": time(150.0), "complaint": ""}]}
    return {"machine": {"device": "NVIDIA H200"}, "parts": {"memory-bound": {
        "floors": {"status": "right", "versions": {"date": date, "torch": "2.11.0"}},
        "rms_norm": {"status": "right", "versions": {"date": date, "torch": "2.11.0"},
                     "rows": [row]},
        "rope": {"status": "not run", "why": "for lack of time"}}}}


def write(folder, **runs):
    for name, content in runs.items():
        (folder / f"gpu-{name}.json").write_text(json.dumps(content))
    return folder


def test_without_a_run_it_says_so_and_how_to_make_one(tmp_path, capsys):
    assert measured.draw(["rms_norm"], folder=tmp_path) is None
    assert "No run on a GPU has been committed yet" in capsys.readouterr().out
    other = write(tmp_path, parallel={"machine": {}, "checks": []})
    assert measured.draw(["rms_norm"], folder=other) is None


def test_the_bars_are_the_medians_of_the_newest_run(tmp_path):
    old = run("2026-11-19", 999.0)
    old["machine"]["device"] = "NVIDIA L4"
    fig = measured.draw(["rms_norm"], folder=write(tmp_path, old=old, new=run()))
    (ax,) = fig.axes
    assert [bar.get_width() for bar in ax.patches] == [100.0, 400.0, 150.0]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["this kernel", "eager",
                                                                  "F.rms_norm"]
    assert "67%" in ax.get_title() and "NVIDIA H200, 2026-11-20" in ax.get_xlabel()
    assert ax.lines[0].get_xdata()[0] == pytest.approx(268_435_456 / 4e12 * 1e6)


def test_a_kernel_that_arithmetic_limits_is_compared_with_a_product(tmp_path):
    (ax,) = measured.draw(["rms"], folder=write(tmp_path, new=run(n_operations=4e10))).axes
    assert "50% of a product's rate" in ax.get_title()
    assert ax.lines[0].get_xdata()[0] == pytest.approx(4e10 / 8e14 * 1e6)


def test_a_kernel_that_was_not_timed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="begins with rope; the run timed rms_norm forward"):
        measured.draw(["rope"], folder=write(tmp_path, new=run()))
