"""The stored runs that chapters and the README show: each belongs to a named experiment."""

import sys

import pytest

from llama_from_scratch import bundled
from llama_from_scratch.config import Experts
from llama_from_scratch.experiments import Store, baseline, expert_use, named, stored
from llama_from_scratch.experiments.named import VARIANTS
from llama_from_scratch.experiments.stored import EXPERT_USE

DATA = bundled.path("README.md").parent
sys.path.insert(0, str(DATA))  # the maker is a script beside the data, outside the package

import make_baselines  # noqa: E402

FOLDERS = sorted(path.name for path in (DATA / "experiments").iterdir())


def test_every_stored_result_has_a_maker():
    assert FOLDERS == sorted(make_baselines.BASELINES)


def variants_of(name):
    """The baseline and every change of an experiment; each refuses other settings and parts."""
    return [baseline(named(name)), *(stored(named(name), change)
                                     for change in VARIANTS.get(name, {}))]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_stored_result_belongs_to_a_named_experiment_whose_settings_still_exist(name):
    for saved in variants_of(name):
        check_runs(name, named(name), saved)


def check_runs(name, experiment, saved):
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
    wanted = {run.folder / name for run in runs for name in ("run.json", "curves.npz")}
    assert files == wanted | {run.folder / EXPERT_USE for run in runs if has_experts(run)}


def has_experts(run):
    spec = run.settings["model.layers.feed_forward"]
    return isinstance(spec, dict) and spec["kind"] == "experts"


def test_the_use_of_experts_counts_the_validation_text_of_its_run():
    totals = set()
    for saved in variants_of("experts"):
        for run in saved.runs:
            if has_experts(run):
                counts_LVE = expert_use(run).counts
                totals.add(tuple(counts_LVE.sum((1, 2)).tolist()))
                assert isinstance(named("experts").model.layers[0].feed_forward, Experts)
                assert counts_LVE.shape == (4, 1024, 8)
                assert (counts_LVE.sum(2) == counts_LVE[0].sum(1)).all(), "one text in all layers"
    assert len(totals) == 1
