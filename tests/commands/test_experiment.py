import json
import os
import signal
import subprocess
import sys

import pytest
from tiny_experiments import tiny
from tiny_sweeps import at_the_gate, is_there, locks, wait_until, write_mine

from llama_from_scratch.__main__ import main
from llama_from_scratch.experiments.named import EXPERIMENTS
from llama_from_scratch.experiments.running import run, variants_of
from llama_from_scratch.experiments.store import Store, planned, write


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A tiny experiment that the course knows by name."""
    base = tiny(tmp_path)
    monkeypatch.setitem(EXPERIMENTS, "tiny", base)
    return base


@pytest.fixture
def store(tmp_path, base):
    """A store with the unchanged run, and with a planned one with another norm."""
    folder = tmp_path / "S"
    run(base, kept_in=folder, show=lambda moment: None)
    one, = variants_of(base, settings={"train.peak_lr": 0.5}, seeds=[1],
                       replace={"norm": "torch.nn:LayerNorm"})
    write(planned(one, base=base, place=Store(folder).place(one, base=base)))
    return folder


def experiment(*words, store):
    return main(["experiment", words[0], "--store", str(store), *words[1:]])


def test_a_sweep_is_interrupted_and_resumed_by_command(tmp_path, capsys):
    file, folder = write_mine(tmp_path), tmp_path / "S"
    command = [sys.executable, "-m", "llama_from_scratch", "experiment", "run", "--from",
               f"{file}:MINE", "--set", "train.peak_lr=1e-2,2e-2", "--seeds", "2", "--workers", "2",
               "--replace", f"schedule={file}:schedule", "--store", str(folder)]
    process = subprocess.Popen(command, start_new_session=True, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: len(at_the_gate(tmp_path)) == 2 or process.poll() is not None)
    os.killpg(process.pid, signal.SIGINT)
    shown, progress = process.communicate()
    assert process.returncode == 130 and "Traceback" not in progress, progress
    resume = f"llama experiment resume tiny --from {file}:MINE --store {folder}"
    assert f"4 of 4 runs are not finished; to continue: {resume}" in shown
    assert not any(map(is_there, at_the_gate(tmp_path))) and not locks(folder)

    (tmp_path / "open").touch()
    assert experiment("resume", store=folder) == 2
    told = capsys.readouterr().err
    assert told.count("left: tiny/") == 4 and "Give it with --from FILE.py:NAME" in told
    assert main([*resume.split()[1:], "--workers", "1"]) == 0
    assert capsys.readouterr().out.count("validation loss") == 4
    assert {one.state for one in Store(folder).runs()[0]} == {"complete"}
    assert experiment("resume", store=folder) == 0
    assert "nothing to resume" in capsys.readouterr().out
    assert experiment("list", store=folder) == 0
    assert "peak_lr=0.02, schedule=schedule  2 complete  validation loss " in \
        capsys.readouterr().out


def test_list_shows_what_was_run_and_what_is_damaged(store, capsys):
    damaged = store / "tiny" / "baseline" / "seed-7"
    damaged.mkdir()
    (damaged / "curves.npz").touch()
    assert experiment("list", store=store) == 0
    shown = capsys.readouterr().out
    assert "tiny: Does it work?" in shown and "small: What changes" in shown
    assert "1 complete  validation loss " in shown and "LayerNorm  1 planned" in shown
    assert f"damaged: {damaged}: a run has a run.json" in shown
    assert experiment("list", "tiny", store=store) == 0
    assert "small:" not in capsys.readouterr().out
    assert experiment("list", "tinny", store=store) == 2
    assert "did you mean 'tiny'" in capsys.readouterr().err


def test_a_store_of_a_newer_version_is_refused(store, capsys):
    file = store / "tiny" / "baseline" / "seed-0" / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
    assert experiment("list", store=store) == 2
    assert "newer version of this library (format 99" in capsys.readouterr().err
    assert experiment("run", "tiny", store=store) == 2
    assert "newer version" in capsys.readouterr().err and file.exists()


def test_show_knows_experiments_variants_and_runs(store, capsys):
    assert experiment("show", "small", store=store) == 0
    shown = capsys.readouterr().out
    assert "no runs yet; llama experiment run small" in shown
    assert "model.rope_theta           10000" in shown and "data.separator" in shown
    assert "norm          called as norm(dim, eps=...)" in shown
    assert experiment("show", "tiny", store=store) == 0
    assert "1 planned" in capsys.readouterr().out

    assert experiment("show", "tiny/peak_lr=0.5", store=store) == 0
    shown = capsys.readouterr().out
    assert "train.peak_lr  0.5  (otherwise 0.01)" in shown and "train.peak_lr" in shown
    assert "norm: LayerNorm, from torch.nn:LayerNorm" in shown and "  | class LayerNorm" in shown
    assert "seed 1: planned" in shown
    for word in ("tiny/baseline/seed-0", str(store / "tiny" / "baseline" / "seed-0")):
        assert experiment("show", word, store=store) == 0
        shown = capsys.readouterr().out
        assert "sample after 6 steps  'The" in shown and "validation_loss " in shown
        assert "n_threads" in shown and "commit" in shown and "torch" in shown


def test_delete_asks_says_what_and_deletes(store, capsys, monkeypatch):
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert experiment("delete", "tiny/peak", store=store) == 0
    shown = capsys.readouterr().out
    assert "/seed-1\nDelete 1 run? [y/N] nothing is deleted" in shown
    assert experiment("delete", "tiny/peak", "--yes", store=store) == 0
    assert [one.variant for one in Store(store).runs()[0]] == ["baseline"]
    damaged = store / "tiny" / "baseline" / "seed-0"
    (damaged / "run.json").write_text("{")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert experiment("delete", "tiny/baseline/seed-0", store=store) == 0
    assert not damaged.exists() and not (store / "tiny").exists()


@pytest.mark.parametrize(("words", "told"), [
    (["run"], "needs the name of an experiment, or --from"),
    (["run", "tinny"], "did you mean 'tiny'?"),
    (["run", "tiny", "--set", "train.peak_lrr=1"], "did you mean 'train.peak_lr'?"),
    (["run", "tiny", "--set", "train.peak_lr=fast"], "train.peak_lr must be a number; got 'fast'"),
    (["run", "tiny", "--set", "train.peak_lr"], "--set takes NAME=VALUE"),
    (["run", "tiny", "--set", "train.peak_lr=1,,2"], "a value on both sides of each comma"),
    (["run", "tiny", "--set", "seed=1", "--set", "seed=2"], "got 'seed' more than once"),
    (["run", "tiny", "--replace", "nrm=torch.nn:LayerNorm"], "did you mean 'norm'?"),
    (["run", "tiny", "--replace", "norm=torch.nn:LayerNrm"], "did you mean 'LayerNorm'?"),
    (["run", "tiny", "--replace", "norm=torch.nn:Linear"], "the part 'norm' must be called as"),
    (["run", "--from", "nothing.py:MINE"], "nothing.py does not"),
    (["run", "--from", "torch.nn:LayerNorm"], "must lead to an Experiment"),
    (["show"], "show needs an experiment"),
    (["show", "tinny"], "did you mean 'tiny'?"),
    (["show", "tiny/zzz"], "no variant is called 'zzz'; known: 'baseline'"),
    (["delete", "tiny"], "delete needs a variant or a run"),
    (["resume", "tinny"], "has no runs of 'tinny'; did you mean 'tiny'?")])
def test_what_cannot_be_is_refused_with_what_could(store, capsys, words, told):
    before = sorted(store.rglob("run.json"))
    assert experiment(*words, store=store) == 2
    assert told in capsys.readouterr().err
    assert sorted(store.rglob("run.json")) == before


def test_an_experiment_of_a_file_is_shown_and_its_name_must_agree(tmp_path, base, capsys):
    file = tmp_path / "own.py"
    file.write_text("import dataclasses\nfrom llama_from_scratch.experiments import named\n"
                    "MINE = dataclasses.replace(named('tiny'), name='mine', about='Is it mine?')\n")
    assert experiment("show", "--from", f"{file}:MINE", store=tmp_path / "S") == 0
    assert "mine: Is it mine?" in capsys.readouterr().out
    assert experiment("run", "other", "--from", f"{file}:MINE", store=tmp_path / "S") == 2
    assert "it is called 'mine', got 'other'" in capsys.readouterr().err
