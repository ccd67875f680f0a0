import pytest

from llama_from_scratch.__main__ import main
from llama_from_scratch.tune import studies
from llama_from_scratch.tune.evals import Share
from llama_from_scratch.tune.studies.study import Study


@pytest.fixture(autouse=True)
def small(monkeypatch):
    def right(n: int):
        return lambda seed: {"share": Share(n_right=n + seed, n=10)}

    one = Study(name="tiny", about="Which is right?", control="plain",
                methods={"plain": right(2), "better": right(7)})
    monkeypatch.setitem(studies.STUDIES, "tiny", one)


def test_a_study_runs_is_kept_and_is_listed(tmp_path, capsys):
    command = ["experiment", "run", "tiny", "--seeds", "2", "--store", str(tmp_path)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "4 runs, the control is 'plain'" in said
    assert "better, seed 1: share 0.80 ± 0.13" in said and "0.30±0.14" in said
    assert (tmp_path / "studies" / "tiny.json").is_file()
    assert main(command) == 0
    assert "seed 1: share" not in capsys.readouterr().out, "nothing runs twice"
    assert main(["experiment", "list", "--store", str(tmp_path)]) == 0
    listed = capsys.readouterr().out
    assert "tiny: Which is right?" in listed and "0.80±0.13" in listed
    assert "preferring: " in listed and "llama experiment run preferring" in listed
    assert main(["experiment", "list", "tiny", "--store", str(tmp_path)]) == 0
    assert "preferring" not in capsys.readouterr().out


@pytest.mark.parametrize("option", [["--set", "train.peak_lr=1"], ["--replace", "norm=torch.nn"],
                                    ["--workers", "2"]])
def test_options_that_a_study_does_not_have_are_refused(tmp_path, capsys, option):
    assert main(["experiment", "run", "tiny", "--store", str(tmp_path), *option]) == 2
    assert f"got {option[0]}. Leave that out" in capsys.readouterr().err
    assert not list(tmp_path.rglob("tiny.json"))


def test_an_interrupt_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def interrupted(seed: int):
        raise KeyboardInterrupt

    monkeypatch.setitem(studies.STUDIES["tiny"].methods, "better", interrupted)
    assert main(["experiment", "run", "tiny", "--store", str(tmp_path)]) == 130
    assert "llama experiment run tiny --seeds 1" in capsys.readouterr().out
