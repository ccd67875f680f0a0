import dataclasses

import pytest
from tiny_experiments import tiny

from llama_from_scratch.experiments.choosing import chosen, chosen_variant, folders, parsed
from llama_from_scratch.experiments.settings import changed
from llama_from_scratch.experiments.store import Store, planned, write
from llama_from_scratch.experiments.variant import grouped


@pytest.fixture
def store(tmp_path):
    base, kept_in = tiny(tmp_path), Store(tmp_path / "S")
    for values in ({}, {"train.peak_lr": 0.5}, {"train.peak_lr": 0.25}, {"model.rope_theta": 5e5}):
        for seed in (0, 1):
            one = dataclasses.replace(changed(base, values), seed=seed)
            write(planned(one, base=base, place=kept_in.place(one, base=base)))
    return kept_in


def names(runs):
    return sorted({run.variant.rpartition("-")[0] or run.variant for run in runs})


@pytest.mark.parametrize(("word", "found", "n_runs"), [
    ("tiny", ["baseline", "peak_lr=0.25", "peak_lr=0.5", "rope_theta=500000.0"], 8),
    ("tiny/baseline", ["baseline"], 2),
    ("tiny/base/", ["baseline"], 2),
    ("tiny/peak_lr=0.5", ["peak_lr=0.5"], 2),
    ("tiny/rope_theta=500000", ["rope_theta=500000.0"], 2),
    ("tiny/theta=500000", ["rope_theta=500000.0"], 2),
    ("tiny/rope/seed-1", ["rope_theta=500000.0"], 1)])
def test_runs_are_named_by_folder_label_beginning_or_piece(store, word, found, n_runs):
    runs = chosen(word, kept_in=store)
    assert names(runs) == found and len(runs) == n_runs
    assert folders(word, kept_in=store) == sorted(run.folder for run in runs)


def test_a_run_is_named_by_its_own_folder_too(store):
    folder = store.folder / "tiny" / "baseline" / "seed-1"
    run, = chosen(str(folder), kept_in=Store("/nowhere"))
    assert (run.variant, run.seed) == ("baseline", 1)


@pytest.mark.parametrize(("word", "told"), [
    ("tinny", "did you mean 'tiny'"),
    ("tiny/peak_lr", "must lead to one; 'peak_lr' leads to peak_lr=0.25-.*, peak_lr=0.5-"),
    ("tiny/bassline", "did you mean 'baseline'"),
    ("tiny/zzzz", "known: 'baseline', 'peak_lr=0.25', "),
    ("tiny/baseline/seed-7", "no run with the seed 7; it has 0, 1"),
    ("tiny/seed-0", "NAME/VARIANT/seed-K")])
def test_an_unknown_name_names_the_nearest(store, word, told):
    for find in (chosen, folders):
        with pytest.raises(ValueError, match=told):
            find(word, kept_in=store)


def test_a_damaged_run_can_be_named_to_delete_it(store):
    folder = store.folder / "tiny" / "baseline" / "seed-1"
    (folder / "run.json").write_text("{")
    assert folder in folders("tiny/baseline", kept_in=store)
    assert len(chosen("tiny/baseline", kept_in=store)) == 1


def test_a_label_with_a_slash_is_one_variant(tmp_path):
    assert parsed("tiny/path=a/b.txt/seed-2") == ("tiny", "path=a/b.txt", 2)
    assert parsed("tiny/path=a/b.txt") == ("tiny", "path=a/b.txt", None)
    assert parsed("tiny") == ("tiny", None, None)


def test_a_whole_name_wins_over_longer_ones(store):
    variants = grouped(chosen("tiny", kept_in=store))
    assert chosen_variant(variants[0].name, variants) is variants[0]
