from llama_from_scratch.tune.studies import ranks, starts


def test_adapters_learn_and_the_control_does_not(monkeypatch):
    monkeypatch.setattr(starts, "N_CASES", 32)
    monkeypatch.setattr(starts, "N_STORIES", 4)
    control = ranks._taught(0, n_steps=0)
    low = ranks._taught(0, n_steps=24, rank=2, peak_lr=8e-3)
    assert low["taught pairs"].value > control["taught pairs"].value + 0.1
    assert low["bits per byte"].value > control["bits per byte"].value
