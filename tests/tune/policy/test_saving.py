import dataclasses
import json

import pytest
import tiny_rewards
from tiny_rewards import CONFIG, PROMPTS, STOPS, TOKENIZER, share_of_letters, weights

import llama_from_scratch
from llama_from_scratch.train import resume
from llama_from_scratch.tune import reinforce


def fit(folder, *, config=CONFIG, prompts=PROMPTS, model=None, **options):
    model = tiny_rewards.make() if model is None else model
    return reinforce.fit(model, prompts, TOKENIZER, reward=share_of_letters, config=config,
                         stop_ids=STOPS, folder=folder, **options), model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    history, model = fit(folder, config=dataclasses.replace(CONFIG, n_steps=2, beta=0.1))
    return folder, history, model


def test_a_saved_run_is_a_checkpoint_that_loads(saved):
    folder, _, model = saved
    loaded, tokenizer = llama_from_scratch.load(folder)
    assert weights(loaded).equal(weights(model))
    assert tokenizer.vocab_size == TOKENIZER.vocab_size


def test_training_on_text_does_not_take_it_for_its_own_run(saved):
    with pytest.raises(ValueError, match="training.json"):
        resume.read(saved[0])


def test_a_longer_run_continues_and_a_shorter_one_is_refused(saved):
    folder, history, model = saved
    config = dataclasses.replace(CONFIG, n_steps=2, beta=0.1, answers_at_once=3, patience=5)
    again, same = fit(folder, config=config, is_resumed=True)
    assert again.steps == history.steps and weights(same).equal(weights(model))
    with pytest.raises(ValueError, match="has taken 2, got n_steps=1. Choose more"):
        fit(folder, config=dataclasses.replace(config, n_steps=1), is_resumed=True)


@pytest.mark.parametrize("changes, message", [
    (dict(config=dataclasses.replace(CONFIG, n_steps=2, beta=0.1, baseline="others")),
     "config.baseline is 'mean' there and 'others' here"),
    (dict(prompts=PROMPTS[1:]), "prompts is"),
    (dict(model=tiny_rewards.make(1)), "reference is"),
    (dict(model=tiny_rewards.make(norm_eps=1e-3)), "model.norm_eps is"),
])
def test_a_resumed_run_keeps_its_settings_prompts_and_reference(saved, changes, message):
    how = dict(config=dataclasses.replace(CONFIG, n_steps=2, beta=0.1)) | changes
    with pytest.raises(ValueError, match=message):
        fit(saved[0], is_resumed=True, **how)


def test_a_new_run_replaces_no_checkpoint(saved):
    with pytest.raises(ValueError, match="already holds a checkpoint"):
        fit(saved[0])


def test_a_folder_without_a_run_or_with_a_damaged_record_is_refused(saved, tmp_path):
    with pytest.raises(ValueError, match="resuming needs a folder"):
        fit(tmp_path / "none", is_resumed=True)
    fit(tmp_path / "run")
    file = tmp_path / "run" / "training.json"
    record = json.loads(file.read_text())
    for broken in (record | {"kind": "other"}, record | {"updates": None},
                   record | {"settings": {}}):
        file.write_text(json.dumps(broken))
        (tmp_path / "run" / "checksums.json").unlink(missing_ok=True)
        with pytest.raises(ValueError, match="no record of a run by reward"):
            fit(tmp_path / "run", is_resumed=True)
    record["updates"][1]["reward"] = "much"
    file.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="step 1 in"):
        fit(tmp_path / "run", is_resumed=True)
