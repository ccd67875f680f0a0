"""Bars of the next token follow the dials."""

import math

import pytest
import torch
from moved_widgets import TEXT, figure_of, ids_of

from llama_from_scratch.generate.sampling import Sampling
from llama_from_scratch.lessons import views


def test_sampling_bars_follow_the_dials(model, tokenizer):
    explorer = views.sampling(model, tokenizer, text=TEXT)
    explorer.controls["temperature"].value = 0.5
    explorer.controls["top_k"].value = 3
    bars = [bar.get_height() for bar in figure_of(explorer).axes[0].patches]
    logits_V = model(ids_of(tokenizer)[None])[0, -1].detach()
    top = sorted(logits_V.tolist(), reverse=True)[:14]
    total = sum(math.exp(logit) for logit in logits_V.tolist())
    assert bars[:14] == pytest.approx([math.exp(logit) / total for logit in top], rel=1e-3)
    kept = [math.exp(logit / 0.5) for logit in top[:3]]
    assert bars[14:] == pytest.approx([k / sum(kept) for k in kept] + [0.0] * 11, rel=1e-3)
    assert "3 of 290 tokens can be drawn" in explorer.words.value


@pytest.mark.parametrize(("name", "value"),
                         [("temperature", 0.0), ("top_p", 0.05), ("min_p", 0.5), ("top_k", 1)])
def test_each_dial_turned_to_its_end_leaves_fewer_tokens_or_one(model, tokenizer, name, value):
    explorer = views.sampling(model, tokenizer, text=TEXT)
    assert "290 of 290" in explorer.words.value
    explorer.controls[name].value = value
    assert int(explorer.words.value.split(">")[1].split(" of 290")[0]) < 290
    assert explorer.problem.value == ""


def test_sampling_frame_of_an_even_distribution_has_its_entropy():
    figure = views.sampling_frame(torch.zeros(8), Sampling(), names=list("abcd"), after="x")
    assert "8 of 8 tokens can be drawn, entropy 3.0 bits" in figure.get_label()
