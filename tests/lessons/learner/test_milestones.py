"""A milestone is reached only by a part that takes the library's place and computes the same."""

import pytest
import torch

from llama_from_scratch.lessons import milestones
from llama_from_scratch.lessons.check import CheckFailed
from llama_from_scratch.lessons.exercises import progress


class Norm(torch.nn.Module):
    def __init__(self, theirs, factor=1.0):
        super().__init__()
        self.weight, self.eps, self.factor = theirs.weight, theirs.eps, factor

    def forward(self, x):
        root = (x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()
        return self.factor * self.weight * x / root


def put_in(llama, **settings):
    llama.norm = Norm(llama.norm, **settings)


def test_part_that_computes_the_same_reaches_the_milestone(reader, capsys):
    milestones.models("11", "your norm", put_in=put_in)
    said = capsys.readouterr().out
    assert said.startswith("⚑ milestone 11: your norm works in Llama 1, Llama 2, Llama 3")
    assert said.count("\n") == 1 and progress.load(reader).milestones == {"11"}


def test_part_that_computes_something_else_does_not(reader):
    with pytest.raises(CheckFailed, match="with your norm in Llama 1, the model gives another"):
        milestones.models("11", "your norm", put_in=lambda llama: put_in(llama, factor=1.01))
    assert not reader.exists()


def test_scaling_of_rope_that_is_forgotten_is_noticed():
    class Forgetful(torch.nn.Module):
        def __init__(self, theta, n_pairs):
            super().__init__()
            self.frequency_R = theta ** (-torch.arange(n_pairs) / n_pairs)

        def forward(self, positions_BT):
            angle_BTR = positions_BT[..., None] * self.frequency_R
            return torch.polar(torch.ones_like(angle_BTR), angle_BTR)

    def put_rope_in(llama):
        llama.rope = Forgetful(llama.config.rope_theta, llama.config.head_dim // 2)

    milestones.models("12", "your RoPE", put_in=put_rope_in, generations=["llama-1", "llama-3"])
    with pytest.raises(CheckFailed, match=r"with your RoPE in Llama 3\.1"):
        milestones.models("12", "your RoPE", put_in=put_rope_in, generations=["llama-3.1"])


def test_part_that_is_not_put_in_is_refused():
    with pytest.raises(ValueError, match="it replaced none"):
        milestones.models("11", "your norm", put_in=lambda llama: None)


def test_proof_that_fails_is_no_milestone(reader, capsys):
    def proof():
        raise CheckFailed("wrong")

    with pytest.raises(CheckFailed):
        milestones.reached("10", "your tokenizer", proof=proof)
    assert not reader.exists() and capsys.readouterr().out == ""
    milestones.reached("10", "your tokenizer", proof=lambda: None)
    assert capsys.readouterr().out == "⚑ milestone 10: your tokenizer\n"
