import pytest

from llama_from_scratch.tune.studies import preferring, starts


@pytest.fixture(autouse=True)
def small(monkeypatch):
    usual = starts.careless_pairs
    monkeypatch.setattr(starts, "N_SCORED", 8)
    monkeypatch.setattr(preferring, "careless_writer", lambda seed: starts.fresh("assistant"))
    monkeypatch.setattr(preferring, "careless_pairs",
                        lambda n, split, seed: usual(32, split, seed=seed))


def test_the_writer_ties_with_itself_and_methods_differ(monkeypatch):
    control = preferring._measured(0, method="none")
    assert control["wins"].value == 0.5
    for part in (preferring.dpo, preferring.sft):
        name = "DPO" if part is preferring.dpo else "SFT"
        monkeypatch.setattr(part, name, preferring.dataclasses.replace(
            getattr(part, name), n_steps=3, n_warmup=1))
    found = [preferring._measured(0, method="dpo", nll=nll)["words"].value for nll in (0.0, 2.0)]
    assert found[0] != found[1] and found[0] != control["words"].value
