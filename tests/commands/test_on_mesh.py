"""`llama train --mesh` under torchrun: the same run as alone, also natively and on two nodes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import on_ranks
import pytest

from llama_from_scratch.__main__ import main
from llama_from_scratch.train import resume

ROOT = Path(__file__).parents[2]
SMALL = ["--steps", "4", "--every", "4", "--dim", "16", "--layers", "1", "--heads", "2",
         "--kv-heads", "2", "--vocab", "260", "--context", "32", "--seq-len", "32", "--lr", "0.01"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n\n".join(f"The {who} saw a {what}, and both ran home to sleep a little."
                                for who in ("cat", "dog", "old owl", "red hen")
                                for what in ("mouse", "cow", "very small bee")))
    return path


@pytest.fixture(scope="module")
def alone(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert main(["train", "--data", str(text), "--blank-lines", "--out", str(folder), *SMALL]) == 0
    return resume.read(folder)


def under_torchrun(*groups):
    """Runs `llama train` on nodes, each with options of torchrun and of the command."""
    started = [subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *options, "-m", "llama_from_scratch",
         "train", *map(str, command)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for options, command in groups]
    return on_ranks.ends_of(started)


def assert_same_run(folder, alone):
    saved = resume.read(folder)
    assert saved.settings == alone.settings
    assert [s.loss for s in saved.steps] == pytest.approx([s.loss for s in alone.steps], abs=1e-4)
    assert saved.steps[-1].validation.loss == pytest.approx(alone.steps[-1].validation.loss,
                                                            abs=1e-4)


def test_two_processes_train_what_one_does_and_one_goes_on(text, alone, tmp_path, capsys):
    out = tmp_path / "run"
    command = ["--data", text, "--blank-lines", "--out", out, *SMALL, "--mesh", "dp=2", "--zero",
               3]
    codes, said = under_torchrun((["--standalone", "--nproc-per-node", "2"], command))
    assert codes == [0], said
    assert_same_run(out, alone)
    assert said.count("2 ranks, mesh dp=2, ZeRO stage 3, engine own") == 1
    assert said.count("saved in") == 1 and said.count("training a tokenizer") == 1
    assert main(["train", "--resume", "--out", str(out), "--steps", "6"]) == 0
    assert len(resume.read(out).steps) == 6


def test_the_native_engine_trains_on_two_nodes(text, alone, tmp_path):
    out = tmp_path / "run"
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    command = ["--data", text, "--blank-lines", "--out", out, *SMALL, "--mesh", "dp=2,tp=2",
               "--zero", 3, "--engine", "native", "--sequence-parallel"]
    nodes = [["--nnodes", "2", "--node-rank", str(node), "--nproc-per-node", "2", "--master-addr",
              "127.0.0.1", "--master-port", port] for node in range(2)]
    codes, said = under_torchrun(*((options, command) for options in nodes))
    assert codes == [0, 0], said
    assert_same_run(out, alone)


def test_four_processes_divide_tokens_and_layers_and_train_what_one_does(text, tmp_path):
    deeper = [*SMALL, "--layers", "2", "--micro-batch", "1"]
    here, there = tmp_path / "here", tmp_path / "there"
    assert main(["train", "--data", str(text), "--blank-lines", "--out", str(here), *deeper]) == 0
    command = ["--data", text, "--blank-lines", "--out", there, *deeper, "--mesh", "cp=2,pp=2",
               "--schedule", "zero_bubble", "--context-parallel", "ring", "--sharded-checkpoints"]
    codes, said = under_torchrun((["--standalone", "--nproc-per-node", "4"], command))
    assert codes == [0], said
    assert_same_run(there, resume.read(here))
    assert main(["compare", str(here), str(there), "--assert-equal", "--tolerance", "1e-4"]) == 0


def test_rows_that_the_processes_cannot_share_are_refused_before_the_text_is_read(text, tmp_path):
    command = ["--data", text, "--out", tmp_path / "run", *SMALL, "--batch", "3", "--mesh", "dp=2"]
    codes, said = under_torchrun((["--standalone", "--nproc-per-node", "2"], command))
    assert codes == [1] and "got 3 rows for 2 ranks. Choose a batch of 2 or 4 rows" in said
    assert "training a tokenizer" not in said


@pytest.mark.parametrize(("arguments", "words"), [
    (["--mesh", "dp=2"], "needs 2 processes, and this is one alone. Start them with torchrun "
                         "--nproc-per-node 2 -m llama_from_scratch train"),
    (["--mesh", "dp=two"], "a mesh is written as axes with sizes"),
    (["--zero", "2", "--engine", "own"], "only a training on several processes takes --zero and "
                                         "--engine"),
    (["--sequence-parallel"], "takes --sequence-parallel"),
    (["--schedule", "1f1b", "--recompute"], "takes --schedule and --recompute"),
    (["--mesh", "pp=2", "--schedule", "2f2b"], "the schedules of a pipeline are gpipe, 1f1b"),
    (["--mesh", "pp=2", "--chunks", "2"], "only the schedule 'interleaved' has more than one"),
])
def test_what_does_not_fit_together_is_refused_before_anything_is_read(
        arguments, words, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", "--out", str(out), *arguments]) == 2
    assert words in capsys.readouterr().err and not out.exists()


def test_processes_without_a_mesh_are_refused(tmp_path, monkeypatch, capsys):
    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1",
                        "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    assert main(["train", "--out", str(tmp_path / "run")]) == 2
    assert "torchrun has started several processes, and each would train the same model" in (
        capsys.readouterr().err)
