"""The stored runs that chapters and the README show: each belongs to a named experiment."""

import sys

import pytest

from llama_from_scratch import bundled
from llama_from_scratch.experiments import Store, baseline, named

DATA = bundled.path("README.md").parent
sys.path.insert(0, str(DATA))  # the maker is a script beside the data, outside the package

import make_baselines  # noqa: E402

FOLDERS = sorted(path.name for path in (DATA / "experiments").iterdir())


def test_every_stored_result_has_a_maker():
    assert FOLDERS == sorted(make_baselines.BASELINES)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_stored_result_belongs_to_a_named_experiment_whose_settings_still_exist(name):
    experiment = named(name)
    saved = baseline(experiment)  # refuses other settings
    assert [run.seed for run in saved.runs] == [*range(make_baselines.BASELINES[name])]
    for run in saved.runs:
        assert run.is_complete and run.versions["torch"] and not run.code["is_dirty"]
        curves = run.curves
        assert len(curves.steps) == experiment.train.n_steps
        assert curves.validation_loss[-1] == pytest.approx(run.metrics["validation_loss"], rel=1e-6)


def test_nothing_else_is_stored_with_them():
    runs, damaged = Store(DATA / "experiments").runs()
    assert not damaged
    files = {path for path in (DATA / "experiments").rglob("*") if path.is_file()}
    assert files == {run.folder / name for run in runs for name in ("run.json", "curves.npz")}
