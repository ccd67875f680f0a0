import cmath

import pytest
import torch

from llama_from_scratch import family
from llama_from_scratch.config import RopeScaling
from llama_from_scratch.model.rope import (
    Rope,
    Rotate,
    Unrotated,
    apply_rope,
    rope_frequencies,
    rope_rotation,
)


def rotation(positions, head_dim=8, theta=1e4):
    return rope_rotation(torch.as_tensor(positions)[None], rope_frequencies(head_dim, theta=theta))


def llama3(factor):
    return RopeScaling(factor=factor, low_freq_factor=1.0, high_freq_factor=4.0,
                       original_max_seq_len=8192)


@pytest.mark.parametrize(
    ("head_dim", "theta", "scaling", "golden"),
    [
        (128, 1e4, None, {0: 1.0, 1: 0.865964353, 32: 0.00999999978, 63: 1.15478193e-4}),
        (128, 5e5, None, {1: 0.814617217, 32: 1.41421345e-3, 63: 2.45514070e-6}),
        (64, 5e5, None, {1: 0.663601279, 16: 1.41421345e-3, 31: 3.01385808e-6}),
        (128, 5e5, llama3(8.0), {28: 3.2114e-3, 32: 5.24846e-4, 63: 3.068926e-7}),
        (64, 5e5, llama3(32.0), {16: 4.295567e-4, 31: 9.418306e-8}),
        (128, 5e5, llama3(32.0), {32: 4.295567e-4, 63: 7.672315e-8}),
    ],
)
def test_frequencies_are_those_of_the_released_models(head_dim, theta, scaling, golden):
    freq_R = rope_frequencies(head_dim, theta=theta, scaling=scaling)
    assert freq_R.shape == (head_dim // 2,) and freq_R.dtype == torch.float32
    for r, value in golden.items():
        assert freq_R[r].item() == pytest.approx(value, rel=2e-5)


def test_scaling_keeps_fast_pairs_divides_slow_ones_and_blends_six_between():
    plain, scaled = (rope_frequencies(128, theta=5e5, scaling=s) for s in (None, llama3(8.0)))
    ratio = plain / scaled
    assert torch.equal(scaled[:29], plain[:29])
    blended = [1.207484, 1.553415, 2.026313, 2.69453, 3.684253, 5.257327]
    torch.testing.assert_close(ratio[29:35], torch.tensor(blended))
    torch.testing.assert_close(ratio[35:], torch.full((29,), 8.0))


def test_scaling_with_an_empty_blend_band_divides_without_nan():
    scout = RopeScaling(factor=16.0, low_freq_factor=1.0, high_freq_factor=1.0,
                        original_max_seq_len=8192)
    ratio = rope_frequencies(128, theta=5e5) / rope_frequencies(128, theta=5e5, scaling=scout)
    assert set(ratio.tolist()) == {1.0, 16.0}


def test_rope_leaves_position_zero_unchanged():
    x = torch.randn(1, 1, 2, 8)
    assert torch.equal(apply_rope(x, rotation([0])), x)


def test_rope_turns_neighboring_channels_as_complex_numbers():
    torch.manual_seed(0)
    x, positions = torch.randn(1, 3, 2, 8), [0, 5, 70_000]
    out = apply_rope(x, rotation(positions))
    for t, position in enumerate(positions):
        for r in range(4):
            pair = slice(2 * r, 2 * r + 2)
            angle = torch.tensor(float(position)) * torch.tensor(1.0 / 1e4 ** (2 * r / 8))  # fp32
            expected = complex(*x[0, t, 1, pair].tolist()) * cmath.exp(1j * angle.item())
            assert complex(*out[0, t, 1, pair].tolist()) == pytest.approx(expected, abs=1e-5)


def test_rope_keeps_the_length_of_every_pair():
    torch.manual_seed(0)
    x = torch.randn(2, 9, 3, 8)
    out = apply_rope(x, rotation(range(9)))
    after, before = (y.unflatten(-1, (-1, 2)).norm(dim=-1) for y in (out, x))
    torch.testing.assert_close(after, before)


def test_score_depends_only_on_distance():
    torch.manual_seed(0)
    q, k = (apply_rope(torch.randn(1, 1, 1, 8).expand(1, 9, 1, 8), rotation(range(9)))
            for _ in range(2))
    score_TS = torch.einsum("bthk,bshk->ts", q, k)
    for distance in range(-8, 9):
        diagonal = score_TS.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    gaps = (score_TS[1:, 0] - score_TS[0, 0]).abs()
    assert gaps.min() > 1e-3, "scores must differ between distances"


def test_the_part_turns_queries_and_keys_alike():
    torch.manual_seed(0)
    q, k, turn = torch.randn(2, 9, 4, 8), torch.randn(2, 9, 2, 8), rotation(range(9))
    turned_q, turned_k = Rotate()(q, k, turn)
    assert torch.equal(turned_q, apply_rope(q, turn)) and torch.equal(turned_k, apply_rope(k, turn))
    assert not torch.allclose(turned_q[:, 1:], q[:, 1:])
    assert not torch.allclose(turned_k[:, 1:], k[:, 1:])


def test_the_part_without_rope_returns_queries_and_keys_as_they_are():
    q, k = torch.randn(1, 9, 4, 8), torch.randn(1, 9, 2, 8)
    unturned_q, unturned_k = Unrotated()(q, k, rotation(range(9)))
    assert unturned_q is q and unturned_k is k


def test_each_sequence_is_turned_by_its_own_positions():
    torch.manual_seed(0)
    x, freq_R = torch.randn(2, 3, 2, 8), rope_frequencies(8, theta=1e4)
    positions = torch.tensor([[0, 1, 2], [7, 8, 90]])
    out = apply_rope(x, rope_rotation(positions, freq_R))
    for b in range(2):
        alone = apply_rope(x[b : b + 1], rope_rotation(positions[b : b + 1], freq_R))
        assert torch.equal(out[b : b + 1], alone)


def test_half_precision_models_keep_fp32_angles():
    config = family.tiny("llama-3.1")
    rope = Rope(config).to(torch.bfloat16)
    far = torch.tensor([[100_000]])
    assert rope.freq_R.dtype == torch.float32
    assert torch.equal(rope(far), Rope(config)(far))
    x = torch.randn(1, 1, 2, config.head_dim).bfloat16()
    assert torch.equal(apply_rope(x, rope(far)), apply_rope(x.float(), rope(far)).bfloat16())


def test_a_model_made_on_the_meta_device_gets_real_frequencies_when_it_is_filled():
    config = family.tiny("llama-3.1")
    with torch.device("meta"):
        rope = Rope(config)
    assert torch.equal(rope.to_empty(device="cpu").freq_R, Rope(config).freq_R)


def test_gradients_turn_back():
    torch.manual_seed(0)
    x = torch.randn(1, 4, 1, 8, requires_grad=True)
    out, upstream = apply_rope(x, rotation([3, 1, 4, 1])), torch.randn(1, 4, 1, 8)
    (grad,) = torch.autograd.grad((out * upstream).sum(), x)
    torch.testing.assert_close(grad, apply_rope(upstream, rotation([3, 1, 4, 1]).conj()))


def test_an_odd_head_width_is_refused():
    with pytest.raises(ValueError, match="pairs of channels, so head_dim must be even; got 7"):
        rope_frequencies(7, theta=1e4)
