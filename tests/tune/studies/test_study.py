import dataclasses
import json

import pytest
import torch

from llama_from_scratch.tune.evals import Mean, Share
from llama_from_scratch.tune.studies import STUDIES, study, study_named
from llama_from_scratch.tune.studies.study import Study


def counting(calls: list) -> Study:
    def method(name: str):
        def measured(seed: int):
            calls.append((name, seed, torch.get_num_threads()))
            torch.manual_seed(seed)
            return {"share": Share(n_right=seed, n=4),
                    "drawn": Mean(value=torch.rand(1).item(), error=0.5, n=3)}
        return measured

    return Study(name="counting", about="Which?", control="plain",
                 methods={"plain": method("plain"), "other": method("other")})


def test_each_method_runs_once_with_each_seed_and_one_thread(tmp_path):
    calls, heard = [], []
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    state = torch.random.get_rng_state()
    table = study.run(counting(calls), folder=tmp_path, seeds=2, on_run=heard.append)
    assert torch.get_num_threads() == 2 and torch.equal(state, torch.random.get_rng_state())
    torch.set_num_threads(n_threads)
    assert calls == [("plain", 0, 1), ("other", 0, 1), ("plain", 1, 1), ("other", 1, 1)]
    assert [(one.method, one.seed) for one in heard] == [call[:2] for call in calls]
    assert table.methods == ("plain", "other") and table.measures == ("share", "drawn")
    assert table.of("other", "share") == [(0.0, pytest.approx(0.1654, abs=1e-4)),
                                          (0.25, pytest.approx(0.2165, abs=1e-4))]
    assert "plain" in str(table) and "0.25±0.22" in str(table)


def test_what_is_kept_does_not_run_again(tmp_path):
    calls = []
    study.run(counting(calls), folder=tmp_path, seeds=[1])
    table = study.run(counting(calls), folder=tmp_path, seeds=2)
    assert [call[1] for call in calls] == [1, 1, 0, 0]
    assert [(one.method, one.seed) for one in table.runs] == [
        ("plain", 0), ("plain", 1), ("other", 0), ("other", 1)]
    study.run(counting(calls), folder=tmp_path, seeds=[1], is_again=True)
    assert len(calls) == 6 and len(study.read(tmp_path / "counting.json").runs) == 2


def test_results_of_other_code_are_made_again(tmp_path):
    calls = []
    study.run(counting(calls), folder=tmp_path, seeds=1)
    path = tmp_path / "counting.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"code": "other"}))
    study.run(counting(calls), folder=tmp_path, seeds=1)
    assert len(calls) == 4


def test_an_interrupt_loses_only_the_run_in_progress(tmp_path):
    calls = []
    usual = counting(calls)

    def interrupted(seed: int):
        raise KeyboardInterrupt

    broken = dataclasses.replace(usual, methods=dict(usual.methods) | {"other": interrupted})
    with pytest.raises(KeyboardInterrupt):
        study.run(broken, folder=tmp_path, seeds=1)
    assert [one.method for one in study.read(tmp_path / "counting.json").runs] == ["plain"]
    study.run(usual, folder=tmp_path, seeds=1)
    assert [call[0] for call in calls] == ["plain", "other"]


def test_bad_input_is_named(tmp_path):
    usual = counting([])
    with pytest.raises(ValueError, match="lowercase letters"):
        dataclasses.replace(usual, name="../x")
    with pytest.raises(ValueError, match="did you mean 'plain'"):
        dataclasses.replace(usual, control="plan")
    for seeds in (0, [], [1, 1]):
        with pytest.raises(ValueError, match="at least one seed"):
            study.run(usual, folder=tmp_path, seeds=seeds)
    (tmp_path / "counting.json").write_text('{"study": "counting"}')
    with pytest.raises(ValueError, match=r"counting\.json is not .*Delete it"):
        study.run(usual, folder=tmp_path, seeds=1)
    with pytest.raises(ValueError, match="did you mean 'preferring'"):
        study_named("prefering")


def test_names_of_studies_are_not_names_of_experiments():
    from llama_from_scratch.experiments.named import EXPERIMENTS

    assert not set(STUDIES) & set(EXPERIMENTS)
    assert all(name == each.name for name, each in STUDIES.items())


@pytest.mark.parametrize("name", STUDIES)
def test_stored_results_have_every_method_with_two_seeds(name):
    table = study.stored(name)
    assert table.methods == tuple(STUDIES[name].methods)
    assert table.control == STUDIES[name].control and table.about == STUDIES[name].about
    for method in table.methods:
        seeds = [one.seed for one in table.runs if one.method == method]
        assert len(seeds) >= 2 and len(set(seeds)) == len(seeds)
