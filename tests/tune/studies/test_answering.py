import pytest

from llama_from_scratch.tune.studies import answering, starts


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(starts, "N_CASES", 16)
    monkeypatch.setattr(starts, "N_STORIES", 8)
    told, _ = starts.stories()
    monkeypatch.setattr(answering, "stories", lambda: (told[:200], []))


def test_training_and_the_seed_change_the_measures():
    control, short, other = (answering._taught(seed, n_steps=n) for seed, n in (
        (0, 0), (0, 8), (1, 8)))
    assert control == answering._taught(1, n_steps=0)
    assert len({each["bits per byte"].value for each in (control, short, other)}) == 3
    assert set(control) == set(short) == {"plain questions", "one instruction", "bits per byte"}


def test_without_stories_more_is_forgotten():
    kept, lost = (answering._taught(0, n_steps=16, peak_lr=8e-3, has_stories=each)
                  ["bits per byte"].value for each in (True, False))
    assert lost > kept
