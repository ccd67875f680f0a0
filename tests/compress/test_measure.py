"""Readings of the same windows, and their paired difference."""

import copy
import math

import pytest
import torch

from llama_from_scratch import bundled, load
from llama_from_scratch.compress import measure
from llama_from_scratch.train import Packed, evaluate


@pytest.fixture(scope="module")
def mini():
    model, tokenizer = load(bundled.path("mini"), dtype=torch.float32)
    stories = bundled.path("stories.txt").read_text().split("\n\n")[:12]
    return model, Packed(stories, tokenizer)


def test_a_reading_is_the_evaluation_window_by_window(mini):
    model, data = mini
    found = measure.read(model, data, seq_len=128)
    whole = evaluate(model, data, batch_size=4, seq_len=128)
    assert math.isclose(found.bits_per_byte, whole.bits_per_byte, rel_tol=1e-5)
    assert sum(found.n_tokens) == whole.n_targets
    assert measure.read(model, data, seq_len=128, n_windows=3).nats == found.nats[:3]


def test_the_difference_is_paired(mini):
    model, data = mini
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.layers[2].feed_forward.w_down.weight.mul_(0.98)
    one, two = (measure.read(each, data, seq_len=128) for each in (model, other))
    found = measure.cost(two, one)
    total = (sum(two.nats) - sum(one.nats)) / sum(one.n_tokens)
    assert math.isclose(found.value, total, rel_tol=1e-6)
    alone = measure.mean(a / b for a, b in zip(one.nats, one.n_tokens, strict=True))
    assert found.error < alone.error / 10
    assert measure.cost(one, one).value == measure.cost(one, one).error == 0


def test_other_windows_and_too_few_are_refused(mini):
    model, data = mini
    with pytest.raises(ValueError, match="same windows can be compared; got .*128 .*64 tokens"):
        measure.cost(measure.read(model, data, seq_len=128), measure.read(model, data, seq_len=64))
    with pytest.raises(ValueError, match="at least two windows of text; got 1 of 128"):
        measure.read(model, data, seq_len=128, n_windows=1)
