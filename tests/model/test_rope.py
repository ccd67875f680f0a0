import cmath

import pytest
import torch

from llama_from_scratch import family
from llama_from_scratch.config import RopeScaling
from llama_from_scratch.model.rope import Rope, apply_rope, rope_frequencies, rope_rotation


def rotation(positions, head_dim=8, theta=1e4):
    return rope_rotation(torch.as_tensor(positions)[None], rope_frequencies(head_dim, theta=theta))


def llama3(factor):
    return RopeScaling(factor=factor, low_freq_factor=1.0, high_freq_factor=4.0, original_max_seq_len=8192)


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
    torch.testing.assert_close(ratio[29:35], torch.tensor([1.207484, 1.553415, 2.026313, 2.69453, 3.684253, 5.257327]))
    torch.testing.assert_close(ratio[35:], torch.full((29,), 8.0))


def test_scaling_with_an_empty_blend_band_divides_without_nan():
    scout = RopeScaling(factor=16.0, low_freq_factor=1.0, high_freq_factor=1.0, original_max_seq_len=8192)
    ratio = rope_frequencies(128, theta=5e5) / rope_frequencies(128, theta=5e5, scaling=scout)
    assert set(ratio.tolist()) == {1.0, 16.0}


def test_rope_leaves_position_zero_unchanged():
    x = torch.randn(1, 1, 2, 8)
    assert torch.equal(apply_rope(x, rotation([0])), x)


def test_rope_turns_neighbouring_channels_as_complex_numbers():
    torch.manual_seed(0)
    x, positions = torch.randn(1, 3, 2, 8), [0, 5, 70_000]
    out = apply_rope(x, rotation(positions))
    for t, position in enumerate(positions):
        for r in range(4):
            turn = cmath.exp(1j * (torch.tensor(position).float() * torch.tensor(1.0 / 1e4 ** (2 * r / 8))).item())
            expected = complex(*x[0, t, 1, 2 * r : 2 * r + 2].tolist()) * turn
            assert complex(*out[0, t, 1, 2 * r : 2 * r + 2].tolist()) == pytest.approx(expected, abs=1e-5)


def test_rope_keeps_the_length_of_every_pair():
    torch.manual_seed(0)
    x = torch.randn(2, 9, 3, 8)
    out = apply_rope(x, rotation(range(9)))
    torch.testing.assert_close(out.unflatten(-1, (-1, 2)).norm(dim=-1), x.unflatten(-1, (-1, 2)).norm(dim=-1))


def test_score_depends_only_on_distance():
    torch.manual_seed(0)
    q, k = (torch.randn(1, 1, 1, 8).expand(1, 9, 1, 8) for _ in range(2))
    score_TS = torch.einsum("bthk,bshk->ts", apply_rope(q, rotation(range(9))), apply_rope(k, rotation(range(9))))
    for distance in range(-8, 9):
        diagonal = score_TS.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert (score_TS[:, 0] - score_TS[0, 0]).abs()[1:].min() > 1e-3, "scores must differ between distances"


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
    with pytest.raises(ValueError, match="RoPE turns pairs of channels, so head_dim must be even; got 7"):
        rope_frequencies(7, theta=1e4)
