import functools
import json
import re

import pytest
import torch
from command_line import SMALL

from llama_from_scratch.__main__ import main
from llama_from_scratch.commands import train as train_command
from llama_from_scratch.commands.fusing import fuse_for_writing, is_fused
from llama_from_scratch.commands.loading import load_model
from llama_from_scratch.commands.on_mesh import MeshProcess, OneProcess
from llama_from_scratch.kernels import fuse, training
from llama_from_scratch.kernels.fuse import FusedNextLogits


def train(data, out, *flags):
    return main(["train", "--data", str(data / "text.txt"), "--blank-lines", "--out", str(out),
                 *SMALL, *flags])


def losses(folder):
    return [step["loss"] for step in json.loads((folder / "training.json").read_text())["steps"]]


@pytest.fixture
def emulated(monkeypatch):
    """Kernels run on the CPU; no sample is written, which would take long there."""
    monkeypatch.setattr(train_command, "_sample", lambda model, tokenizer: "")
    monkeypatch.setattr(training, "reason_against", lambda device: "")
    monkeypatch.setattr(training, "fuse_training",
                        functools.partial(training.fuse_training, emulate=True))


def test_a_training_with_kernels_says_so_in_one_line_and_has_the_plain_losses(
    trained, tmp_path, capsys, emulated
):
    assert train(trained, tmp_path / "fused", "--fused") == 0
    shown = capsys.readouterr().out.splitlines()
    (line,) = [line for line in shown if "fused" in line and "saved" not in line]
    assert re.fullmatch(r"fused kernels: (\d+) of \1 parts of the model, the loss and AdamW "
                        r"\(--no-fused trains without them\)", line)
    assert train(trained, tmp_path / "plain", "--no-fused") == 0
    assert "fused kernels" not in capsys.readouterr().out
    assert losses(tmp_path / "fused") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)
    assert losses(tmp_path / "fused") != losses(tmp_path / "plain")


def test_a_resumed_run_keeps_the_choice_unless_told_otherwise(trained, tmp_path, capsys, emulated):
    assert train(trained, tmp_path / "run", "--fused") == 0
    more = ["train", "--out", str(tmp_path / "run"), "--resume", "--steps"]
    capsys.readouterr()
    assert main([*more, "7"]) == 0
    assert "fused kernels: " in capsys.readouterr().out
    assert main([*more, "8", "--no-fused"]) == 0
    assert "fused kernels" not in capsys.readouterr().out
    assert len(losses(tmp_path / "run")) == 8


def test_kernels_that_are_asked_for_and_cannot_run_end_the_command(trained, tmp_path, capsys):
    assert train(trained, tmp_path / "run", "--fused") == 2
    told = capsys.readouterr().err
    assert "--fused needs a device that runs kernels: kernels run on CUDA" in told
    assert "--no-fused" in told
    assert not (tmp_path / "run" / "training.json").exists()


class Silent(OneProcess):
    def __init__(self):
        self.said = []

    def say(self, text, **how):
        self.said.append(text)


def test_without_a_word_a_cuda_device_gets_kernels_if_it_runs_them(monkeypatch):
    process = Silent()
    assert not is_fused(None, device="cpu", process=process) and not process.said
    monkeypatch.setattr(training, "reason_against", lambda device: "")
    assert is_fused(None, device="cuda:1", process=process) and not process.said
    assert not is_fused(False, device="cuda", process=process) and not process.said
    monkeypatch.setattr(training, "reason_against", lambda device: "the card is old")
    assert not is_fused(None, device="cuda", process=process)
    assert process.said == ["without fused kernels: the card is old"]


def test_a_mesh_trains_with_its_own_parts_and_says_so():
    process = Silent()
    process.can_fuse = MeshProcess.can_fuse
    assert not is_fused(None, device="cuda", process=process)
    assert process.said[0].startswith("without fused kernels: a mesh divides the model's")
    with pytest.raises(ValueError, match="--fused needs a device that runs kernels: a mesh"):
        is_fused(True, device="cuda", process=process)


def test_a_model_that_writes_with_kernels_says_so_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(training, "reason_against", lambda device: "")
    monkeypatch.setattr("llama_from_scratch.kernels.fuse", functools.partial(fuse, emulate=True))
    words = ["generate", "--prompt", "Once", "--temperature", "0", "--max-tokens", "3"]
    texts = {}
    for flag in ("--fused", "--no-fused"):
        assert main([*words, flag]) == 0
        texts[flag] = capsys.readouterr()
    assert texts["--fused"].out == texts["--no-fused"].out
    assert re.fullmatch(r"fused kernels: (\d+) of \1 parts of the model; steps are recorded and "
                        r"repeated \(--no-fused writes without them\)\n", texts["--fused"].err)
    assert texts["--no-fused"].err == ""


def test_writing_uses_kernels_where_they_run_unless_told_otherwise(monkeypatch, capsys):
    model, _ = load_model(None)
    fuse_for_writing(model, None)
    fuse_for_writing(model, False)
    assert not isinstance(model.next_logits, FusedNextLogits) and capsys.readouterr().err == ""
    with pytest.raises(ValueError, match="--fused needs a device that runs kernels.*--no-fused"):
        fuse_for_writing(model, True)
    monkeypatch.setattr(type(model), "device", torch.device("cuda"))
    monkeypatch.setattr(training, "reason_against", lambda device: "the GPU is too old")
    fuse_for_writing(model, None)
    assert capsys.readouterr().err == "without fused kernels: the GPU is too old\n"
