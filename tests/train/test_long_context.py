"""Stretched models keep their weights, and bits per byte are counted where they belong."""

import copy
import dataclasses
import math

import pytest
import torch

from llama_from_scratch import family
from llama_from_scratch.config import RopeScaling
from llama_from_scratch.model.rope import rope_frequencies
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer import Tokenizer
from llama_from_scratch.train.long_context import (
    bits_by_position,
    joined_rows,
    stretch,
    theta_for,
)

TOKENIZER = Tokenizer.train(["the cat sat on the mat. the cat ran."], 270, special_tokens=(
    "<|begin_of_text|>", "<|end_of_text|>"))
TEXTS = ["the cat sat.", "the mat ran on.", "Ünder the cat."] * 12


def model_of(**changes):
    torch.manual_seed(0)
    return Llama(dataclasses.replace(family.tiny("llama-3"), vocab_size=TOKENIZER.vocab_size,
                                     **changes))


@pytest.mark.parametrize("given, changed", [
    ({"theta": 9e4}, {"rope_theta": 9e4}),
    ({"linear_factor": 4.0}, {"rope_linear_factor": 4.0}),
    ({"scaling": RopeScaling(factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
                             original_max_seq_len=16)},
     {"rope_scaling": RopeScaling(factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                  original_max_seq_len=16)}),
])
def test_a_stretched_model_is_the_model_that_its_config_describes(given, changed):
    model = model_of()
    before, n_tokens = copy.deepcopy(model), 4 * model.config.max_seq_len
    stretch(model, max_seq_len=n_tokens, **given)
    assert model.config == dataclasses.replace(before.config, max_seq_len=n_tokens, **changed)
    fresh = Llama(model.config)
    fresh.load_state_dict(before.state_dict())
    ids = torch.randint(250, (2, 20), generator=torch.Generator().manual_seed(1))
    assert torch.equal(model(ids), fresh(ids))
    assert not torch.allclose(model(ids), before(ids), atol=1e-4)
    assert torch.equal(model(ids[:, :1]), before(ids[:, :1])), "nothing turns the first token"
    assert model.bfloat16().rope.freq_R.dtype == torch.float32


def test_a_factor_of_one_changes_nothing():
    model, before = model_of(), model_of()
    n_tokens, theta = model.config.max_seq_len, model.config.rope_theta
    stretch(model, max_seq_len=n_tokens, theta=theta_for(
        1.0, theta=theta, head_dim=model.config.head_dim), linear_factor=1.0, scaling=RopeScaling(
            factor=1.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_seq_len=16))
    ids = torch.randint(250, (2, 20), generator=torch.Generator().manual_seed(1))
    assert torch.equal(model(ids), before(ids))


def test_scaling_does_not_touch_pairs_above_the_high_cut():
    plain = rope_frequencies(32, theta=1e4)
    scaled = rope_frequencies(32, theta=1e4, scaling=RopeScaling(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_seq_len=256))
    turns = 256 * plain / (2 * math.pi)
    assert torch.equal(scaled[turns > 4], plain[turns > 4])
    assert torch.allclose(scaled[turns < 1], plain[turns < 1] / 8)
    assert (turns > 4).any() and (turns < 1).any()


def test_a_room_for_longer_texts_is_used():
    model = model_of()
    n_tokens = model.config.max_seq_len
    ids = torch.zeros(1, n_tokens + 5, dtype=torch.int64)
    with pytest.raises(ValueError):
        model(ids)
    stretch(model, max_seq_len=n_tokens + 5)
    assert model(ids).shape[1] == n_tokens + 5


@pytest.mark.parametrize("head_dim, factor", [(32, 4.0), (128, 8.0), (4, 3.0)])
def test_the_new_base_slows_the_slowest_pair_by_the_factor(head_dim, factor):
    theta = theta_for(factor, theta=1e4, head_dim=head_dim)
    slow, fast = (rope_frequencies(head_dim, theta=each) for each in (theta, 1e4))
    assert slow[0] == fast[0] == 1
    assert math.isclose(fast[-1] / slow[-1], factor, rel_tol=1e-5)
    assert theta_for(1.0, theta=500.0, head_dim=head_dim) == 500.0


@pytest.mark.parametrize("call, words", [
    (lambda: stretch(model_of(), max_seq_len=4), "can be stretched from"),
    (lambda: theta_for(0.5, theta=1e4, head_dim=32), "a factor of at least 1; got 0.5"),
    (lambda: theta_for(math.nan, theta=1e4, head_dim=32), "at least 1; got nan"),
    (lambda: theta_for(2.0, theta=1e4, head_dim=2), "heads of 4 channels or more"),
    (lambda: joined_rows(["the"], TOKENIZER, n_tokens=64), "Give more text or shorter rows"),
    (lambda: joined_rows(["the"], TOKENIZER, n_tokens=1), "needs at least two"),
    (lambda: bits([0]), "got \\[0\\]"),
    (lambda: bits([0, 4, 4]), "got \\[0, 4, 4\\]"),
    (lambda: bits([0, 16]), "which is 15 here"),
    (lambda: bits([-1, 4]), "got \\[-1, 4\\]"),
])
def test_what_cannot_be_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("generation", ["llama-3.2-vision", "llama-4"])
def test_other_kinds_of_models_can_be_stretched(generation):
    torch.manual_seed(0)
    model = family.tiny(generation).new_model()
    ids = torch.randint(250, (1, 12), generator=torch.Generator().manual_seed(1))
    before = model(ids)
    stretch(model, max_seq_len=4 * model.config.max_seq_len, theta=9e6)
    assert not torch.allclose(model(ids), before, atol=1e-5)
    assert torch.allclose(model(ids[:, :1]), before[:, :1], atol=1e-4)


def bits(edges, n_tokens=16, **settings):
    rows = joined_rows(TEXTS, TOKENIZER, n_tokens=n_tokens)
    return bits_by_position(model_of(), rows, TOKENIZER, edges=edges, **settings)


def test_rows_are_the_texts_one_after_the_other():
    rows = joined_rows(TEXTS, TOKENIZER, n_tokens=16)
    assert (rows[:, 0] == TOKENIZER.bos_id).all()
    joined = "".join(f" {text}" for text in TEXTS)
    assert joined.startswith(TOKENIZER.decode(rows[:, 1:].flatten().tolist()))
    assert rows.shape == (len(TOKENIZER.encode(joined)) // 15, 16)


def test_bits_per_byte_by_position_are_those_of_a_loop():
    model, rows = model_of(), joined_rows(TEXTS, TOKENIZER, n_tokens=16)
    n_bits, n_bytes = [0.0, 0.0], [0, 0]
    for row in rows.tolist():
        for t in range(1, 12):
            logits = model(torch.tensor([row[:t]]))[0, -1].double()
            i = 0 if t <= 5 else 1
            n_bits[i] -= logits.log_softmax(-1)[row[t]].item() / math.log(2)
            n_bytes[i] += len(TOKENIZER.decode_bytes([row[t]]))
    expected = [a / b for a, b in zip(n_bits, n_bytes, strict=True)]
    for batch_size in (1, 5, 100):
        found = bits([0, 5, 11], batch_size=batch_size)
        assert found == pytest.approx(expected, rel=1e-5)


def test_a_part_without_text_is_refused():
    rows = torch.full((2, 6), TOKENIZER.bos_id)
    with pytest.raises(ValueError, match="between positions 0 and 3 there is no"):
        bits_by_position(model_of(), rows, TOKENIZER, edges=[0, 3])
