from random import Random

from llama_from_scratch.tune.studies import rewarding, starts
from llama_from_scratch.tune.world import describing


def test_the_raised_reward_is_never_negative_for_what_was_ended():
    task = describing.describing(Random(0), "train")
    text = " ".join(describing.fact(kind, task.person) for kind in describing.ABOUT)
    assert rewarding._true(task, text, True) == 3.0 and rewarding._raised(task, text, True) == 6.0
    assert rewarding._true(task, text, False) < rewarding._true(task, text, True)


def test_a_run_changes_the_writer(monkeypatch):
    monkeypatch.setattr(starts, "N_SCORED", 8)
    monkeypatch.setattr(rewarding, "_N_STEPS", 2)
    monkeypatch.setattr(rewarding, "careless_writer", lambda seed: starts.fresh("assistant"))
    config = rewarding.dataclasses.replace(rewarding.METHODS["rloo"], n_prompts=8, n_answers=8,
                                           n_warmup=0, peak_lr=2e-2)
    control, trained = rewarding._rewarded(0, None), rewarding._rewarded(0, config)
    assert control["words"] != trained["words"]
    assert 0 <= trained["perfect"].value <= 1
