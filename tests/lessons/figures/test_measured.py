"""The pictures of real runs: they draw what is in the files, and nothing where there are none."""

import json

import pytest

from llama_from_scratch.lessons import measured


def run(date="2026-11-20", us=100.0):
    time = lambda median: {"median": median, "p20": median, "p80": median}
    return {"machine": {"device": "NVIDIA H200", "date": date, "torch": "2.11.0"},
            "copy_bytes_per_s": 4e12, "rows": [
        {"kernel": "rms_norm forward", "dtype": "bfloat16", "n_bytes": 268_435_456,
         "time": time(us), "eager": time(400.0),
         "compiled": None, "library": time(150.0), "library_name": "F.rms_norm",
         "share_of_copy": 0.67}]}


def write(folder, **runs):
    for name, content in runs.items():
        (folder / f"gpu-{name}.json").write_text(json.dumps(content))
    return folder


def test_without_a_run_it_says_so_and_how_to_make_one(tmp_path, capsys):
    assert measured.draw(["rms_norm"], folder=tmp_path) is None
    assert "No run on a GPU has been committed yet" in capsys.readouterr().out
    assert measured.draw(["rms_norm"], folder=write(tmp_path, cut={"sweep": {}})) is None


def test_the_bars_are_the_medians_of_the_newest_run(tmp_path):
    fig = measured.draw(["rms_norm"],
                        folder=write(tmp_path, old=run("2026-11-19", 999.0), new=run()))
    (ax,) = fig.axes
    assert [bar.get_width() for bar in ax.patches] == [100.0, 150.0, 400.0]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["this kernel", "F.rms_norm",
                                                                  "eager PyTorch"]
    assert "67%" in ax.get_title() and "NVIDIA H200, 2026-11-20" in ax.get_xlabel()
    assert ax.lines[0].get_xdata()[0] == pytest.approx(268_435_456 / 4e12 * 1e6)


def test_a_kernel_that_was_not_timed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="begins with rope; the run timed rms_norm forward"):
        measured.draw(["rope"], folder=write(tmp_path, new=run()))
