import dataclasses

import pytest
from tiny_experiments import tiny

from llama_from_scratch.experiments.parts import part
from llama_from_scratch.experiments.settings import changed
from llama_from_scratch.experiments.store import planned
from llama_from_scratch.experiments.variant import grouped, label, told


@pytest.fixture
def record(tmp_path):
    base = tiny(tmp_path)

    def make(*, state="complete", metrics=None, parts=None, error="", notes=(), **values):
        one = dataclasses.replace(changed(base, values), parts=parts or {})
        metrics = {"loss": 2.0, "validation_loss": 2.5, "bits_per_byte": 1.25} if (
            metrics is None) else metrics
        return dataclasses.replace(planned(one, base=base, place=tmp_path), state=state,
                                   metrics=metrics, error=error, notes=notes)

    return make


def test_a_label_says_in_a_few_words_what_differs(record):
    assert label(record()) == "baseline"
    assert label(record(**{"train.peak_lr": 3e-3, "model.n_kv_heads": 2})) == (
        "n_kv_heads=2, peak_lr=0.003")
    assert label(record(parts={"norm": part("torch.nn:LayerNorm")})) == "norm=LayerNorm"
    assert label(record(**{"data.max_documents": 3, "tokenizer.max_documents": 2})) == (
        "data.max_documents=3, tokenizer.max_documents=2")
    assert label(record(**{"sample.prompt": "a\n\x1b[31m"})).isprintable()


def test_the_result_is_told_in_one_line(record):
    assert told(record()) == "validation loss 2.500, 1.250 bits per byte"
    assert told(record(metrics={"loss": 2.0})) == "training loss 2.000"
    assert told(record(state="diverged", error="the loss is nan")) == "diverged: the loss is nan"
    assert told(record(state="stopped")) == "stopped"


def test_runs_are_grouped_by_variant_in_the_order_they_come(record):
    runs = [record(**{"train.peak_lr": 0.1}), record(seed=1), record(seed=0),
            record(**{"train.peak_lr": 0.1, "seed": 3})]
    found = grouped(iter(runs))
    assert [(variant.label, [run.seed for run in variant.runs]) for variant in found] == [
        ("peak_lr=0.1", [0, 3]), ("baseline", [0, 1])]
    assert grouped([]) == []


def test_a_variant_shows_seeds_notes_once_and_the_finals_of_complete_runs(record):
    runs = [record(notes=("frozen",)), record(seed=1, notes=("frozen",)),
            record(seed=2, state="diverged", error="bad"), record(seed=3, metrics={"loss": 1.0})]
    variant, = grouped(runs)
    assert repr(variant).splitlines() == [
        "tiny · baseline", "  seed 0: validation loss 2.500, 1.250 bits per byte",
        "  seed 1: validation loss 2.500, 1.250 bits per byte", "  seed 2: diverged: bad",
        "  seed 3: training loss 1.000", "  frozen"]
    assert variant.finals() == [2.5, 2.5] and variant.finals("loss") == [2.0, 2.0, 1.0]
    assert variant.difference == {} and variant.parts == {}
