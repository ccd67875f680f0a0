"""Stored runs of a change are found by its name, and only if they are what it is now."""

import dataclasses
import sys

import pytest
from tiny_experiments import tiny

from llama_from_scratch.experiments import Store, named, run, stored
from llama_from_scratch.experiments.named import VARIANTS, NamedChange
from llama_from_scratch.experiments.stored import expert_use
from llama_from_scratch.train.loss import sum_of_nats


def quiet(moment):
    """Shows nothing."""


def twice(model, batch, *, is_bf16):
    return 2 * sum_of_nats(model, batch, is_bf16=is_bf16)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A store with two runs of each change of the tiny experiment, and the experiment."""
    home = sys.modules[stored.__module__]
    changes = {"narrow": NamedChange(settings={"model.ffn_dim": 24}),
               "twice": NamedChange(replace={"loss": twice})}
    monkeypatch.setattr(home, "VARIANTS", {"tiny": changes})
    base = tiny(tmp_path)
    for change in (NamedChange(), *changes.values()):
        run(base, seeds=2, kept_in=tmp_path / "runs", replace=change.replace, show=quiet,
            **change.settings)
    return Store(tmp_path / "runs"), base


def test_each_change_has_its_own_runs(kept):
    store, base = kept
    narrow, doubled = (stored(base, name, kept_in=store) for name in ("narrow", "twice"))
    assert [one.seed for one in narrow.runs] == [one.seed for one in doubled.runs] == [0, 1]
    assert narrow.difference == {"model.ffn_dim": 24} and not narrow.parts
    assert [*doubled.parts] == ["loss"] and not doubled.difference


def test_a_changed_setting_of_the_experiment_is_refused(kept):
    store, base = kept
    other = dataclasses.replace(base, train=dataclasses.replace(base.train, peak_lr=2e-2))
    with pytest.raises(ValueError, match=r"has no such run of 'narrow'.*make_baselines\.py tiny"):
        stored(other, "narrow", kept_in=store)


def test_an_unknown_change_is_refused_with_the_nearest(kept):
    store, base = kept
    with pytest.raises(ValueError, match="of tiny is called 'narow'; did you mean 'narrow'"):
        stored(base, "narow", kept_in=store)
    with pytest.raises(ValueError, match="of small is called 'narrow'; it has none"):
        stored(named("small"), "narrow", kept_in=store)


def test_the_use_of_experts_is_only_in_runs_that_have_it(kept):
    store, base = kept
    with pytest.raises(ValueError, match="cannot be read"):
        expert_use(stored(base, "narrow", kept_in=store).runs[0])


@pytest.mark.parametrize(("experiment", "change"), [
    (name, change) for name, changes in VARIANTS.items() for change in changes])
def test_every_change_of_the_course_is_stored(experiment, change):
    assert len(stored(named(experiment), change).runs) >= 2
