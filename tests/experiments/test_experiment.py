import dataclasses

import pytest
from tiny_experiments import tiny

from llama_from_scratch.experiments.experiment import Sample, TextSource, TokenizerFrom, described
from llama_from_scratch.experiments.parts import part


@pytest.mark.parametrize("name", ["", "Tiny", "a b", "../up", "a/b", "é", "x" * 42, "a\n"])
def test_a_name_that_is_no_plain_folder_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="the name of an experiment is the name of its folder"):
        dataclasses.replace(tiny(tmp_path), name=name)


def test_the_seed_of_the_experiment_is_the_only_one(tmp_path):
    experiment = tiny(tmp_path)
    with pytest.raises(ValueError, match="one seed.*Set `seed`"):
        dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, seed=1))
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match=r"from 0 to 2\^32 - 1"):
            dataclasses.replace(experiment, seed=seed)


def test_windows_longer_than_the_context_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"train.seq_len=33, model.max_seq_len=32"):
        tiny(tmp_path, **{"train.seq_len": 33})


@pytest.mark.parametrize(("make", "message"), [
    (lambda: TextSource(max_documents=0), "data.max_documents must be at least 1"),
    (lambda: TextSource(max_validation=-1), "data.max_validation must be at least 1"),
    (lambda: TextSource(validation=0.0), "between 0 and 1"),
    (lambda: TextSource(validation=float("nan")), "between 0 and 1"),
    (lambda: TextSource(separator=""), "must not be empty"),
    (lambda: TokenizerFrom(max_documents=0), "tokenizer.max_documents must be at least 1"),
    (lambda: Sample(n_tokens=-1), "sample.n_tokens must be at least 0"),
    (lambda: Sample(temperature=float("nan")), "sample.temperature must be at least 0 and finite"),
    (lambda: Sample(temperature=float("inf")), "sample.temperature must be at least 0 and finite"),
    (lambda: Sample(top_p=0.0), "sample.top_p is a probability"),
    (lambda: Sample(top_p=1.5), "sample.top_p is a probability"),
])
def test_values_that_cannot_be_are_refused_by_their_dotted_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_parts_are_described_in_the_order_of_their_names(tmp_path):
    parts = {"schedule": part(max), "norm": part("torch.nn:LayerNorm")}
    found = described(dataclasses.replace(tiny(tmp_path), parts=parts))
    assert list(found) == ["norm", "schedule"] and found["norm"]["name"] == "LayerNorm"
