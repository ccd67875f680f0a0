import builtins
import dataclasses
import importlib.util
import json
import sqlite3

import numpy as np
import pytest
from tiny_experiments import tiny

from llama_from_scratch.experiments.curves import METRICS, Curves
from llama_from_scratch.experiments.export import TOOLS, export
from llama_from_scratch.experiments.settings import changed
from llama_from_scratch.experiments.store import Store, planned, write
from llama_from_scratch.train.records import Evaluation, Step


def needs(name):
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=(
        f'needs {name}, which is not installed: pip install "llama_from_scratch[{name}]"'))


@pytest.fixture
def runs(tmp_path):
    """Returns two runs that were never trained: of the experiment, and with another rate."""
    base, kept, found = tiny(tmp_path), Store(tmp_path / "runs"), []
    for values in ({}, {"train.peak_lr": 0.1, "seed": 3}):
        one = changed(base, values)
        run = dataclasses.replace(
            planned(one, base=base, place=kept.place(one, base=base)), state="complete",
            began="2026-01-31T12:00:00+00:00", metrics={"loss": 2.0, "validation_loss": 2.5},
            samples=((2, "*odd* <b>text</b>\n# 💡"),))
        write(run)
        steps = [Step(step=i, loss=3.0 - i, lr=0.1, grad_norm=1.0, n_tokens=32, time_s=0.5,
                      validation=Evaluation(loss=2.5, bits_per_byte=1.5, n_targets=9, n_bytes=9)
                      if i == 1 else None) for i in range(2)]
        Curves.of(steps, config=one.model, seq_len=16).write(run.folder / "curves.npz")
        found.append(run)
    return found


@needs("tensorboard")
def test_tensorboard_itself_reads_its_export(runs, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # the second export replaces the first
        places = export(runs, to="tensorboard", folder=tmp_path / "it's here")
    assert [place.relative_to(tmp_path / "it's here").parts[0::2] for place in places] == [
        ("tiny", "seed-0"), ("tiny", "seed-3")]
    for run, place in zip(runs, places, strict=True):
        events = EventAccumulator(str(place)).Reload()
        assert set(METRICS) <= set(events.Tags()["scalars"])
        points = events.Scalars("loss")
        assert [(point.step, point.value) for point in points] == [(1, 3.0), (2, 2.0)]
        assert [point.wall_time - points[0].wall_time for point in points] == [0.0, 0.5]
        assert [(p.step, p.value) for p in events.Scalars("validation_loss")] == [(2, 2.5)]
        text, = events.Tensors("sample/text_summary")
        assert text.tensor_proto.string_val[0].decode() == "    *odd* <b>text</b>\n    # 💡\n"
        about, = events.Tensors("run/text_summary")
        assert json.loads(about.tensor_proto.string_val[0])["difference"] == run.difference
        assert events.Scalars("final/validation_loss")[0].value == 2.5


@needs("mlflow")
def test_mlflow_itself_reads_its_export(runs, tmp_path):
    file, = export(runs, to="mlflow", folder=tmp_path / "ml")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{file}")
    experiment = client.get_experiment_by_name("tiny")
    found = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
    assert sorted(found) == sorted(f"{run.variant}, seed {run.seed}" for run in runs)
    one = found["baseline, seed 0"]
    assert one.data.params["train.peak_lr"] == "0.01" and one.info.status == "FINISHED"
    history = client.get_metric_history(one.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 3.0), (2, 2.0)]
    with sqlite3.connect(file) as database:
        assert database.execute("select count(*) from runs").fetchone() == (2,)
    assert all(path.is_relative_to(tmp_path) for path in (tmp_path / "ml" / "mlruns").rglob("*"))
    assert len(list((tmp_path / "ml" / "mlruns").rglob("samples.txt"))) == 2


@needs("wandb")
def test_wandb_writes_offline_runs(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")  # a reader's own setting sends nothing either
    monkeypatch.chdir(tmp_path)
    places = export(runs, to="wandb", folder=tmp_path / "w")
    assert len(set(places)) == 2
    for place in places:
        assert place.is_relative_to(tmp_path / "w") and place.name.startswith("offline-run-")
        assert len(list(place.glob("*.wandb"))) == 1
    data = next(places[0].glob("*.wandb")).read_bytes()
    assert b"validation_loss" in data and b"train.peak_lr" in data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "stories.txt", "w"]


@pytest.mark.parametrize("to", TOOLS)
def test_a_missing_library_is_named_with_the_extra_that_brings_it(runs, tmp_path, monkeypatch, to):
    plain = builtins.__import__

    def without(name, *rest, **options):
        if name.split(".")[0] in TOOLS or name == "torch.utils.tensorboard":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return plain(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=rf'{to} needs .* pip install "llama_from_scratch\[{to}\]'):
        export(runs, to=to, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_each_tool_has_its_extra():
    text = (Store().folder.parents[1] / "pyproject.toml").read_text("utf-8")
    assert all(f"\n{tool} = [" in text for tool in TOOLS)


def test_an_unknown_tool_is_refused_with_the_nearest(runs, tmp_path):
    with pytest.raises(ValueError, match="did you mean 'tensorboard'"):
        export(runs, to="tensorbord", folder=tmp_path)


def test_a_run_without_curves_is_refused_before_anything_is_written(runs, tmp_path):
    (runs[1].folder / "curves.npz").unlink()
    with pytest.raises(ValueError, match="which does not exist"):
        export(runs, to="tensorboard", folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_points_of_a_run_are_all_of_its_measurements(runs):
    from llama_from_scratch.experiments.export import _points

    points = list(_points(runs[0].curves))
    assert len(points) == 3 * 2 + 2 * 1 and {name for name, *_ in points} == set(METRICS)
    np.testing.assert_allclose([second for name, _, second, _ in points if name == "loss"],
                               [0.5, 1.0])
