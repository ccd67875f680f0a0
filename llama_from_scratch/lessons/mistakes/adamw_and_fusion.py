"""Mistakes that readers make in chapter 36."""

from collections.abc import Sequence

import torch
from torch import Tensor

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


# --- 1: bytes per parameter -----------------------------------------------------------------------


@listed("36.1", of="bytes_per_parameter")
def one_average(weight: int, gradient: int, average: int, master: int = 0) -> int:
    """one average is counted: AdamW keeps two"""
    return 2 * (master or weight) + 2 * average + gradient + (weight if master else 0)


@listed("36.1", of="bytes_per_parameter")
def only_reads(weight: int, gradient: int, average: int, master: int = 0) -> int:
    """only what is read is counted: the weight and its averages are written, too"""
    return (master or weight) + 2 * average + gradient


@listed("36.1", of="bytes_per_parameter")
def gradient_written(weight: int, gradient: int, average: int, master: int = 0) -> int:
    """the gradient is counted twice: a step reads it and does not write it"""
    return 2 * (master or weight) + 4 * average + 2 * gradient + (weight if master else 0)


@listed("36.1", of="bytes_per_parameter")
def without_copy(weight: int, gradient: int, average: int, master: int = 0) -> int:
    """the copy is left out: with a master, the weight itself is written, too"""
    return 2 * (master or weight) + 4 * average + gradient


@listed("36.1", of="bytes_per_parameter")
def copy_read(weight: int, gradient: int, average: int, master: int = 0) -> int:
    """the copy is counted twice: with a master, the weight itself is written and not read"""
    return 2 * (master or weight) + 4 * average + gradient + (2 * weight if master else 0)


@listed("36.1", of="bytes_per_parameter")
def without_master(weight: int, gradient: int, average: int, master: int = 0) -> int:
    """the master is left out: it is read and written"""
    return 2 * weight + 4 * average + gradient


# --- 2: clip without an if ------------------------------------------------------------------------


def _norm(gradients: Sequence[Tensor]) -> Tensor:
    return torch.stack([g.square().sum() for g in gradients]).sum().sqrt()


@listed("36.2", of="clipped")
def each_alone(gradients: Sequence[Tensor], max_norm: float) -> list[Tensor]:
    """each gradient is clipped by its own length: all of them together are one vector"""
    return [g * (max_norm / _norm([g])).clamp(max=1.0) for g in gradients]


@listed("36.2", of="clipped")
def always_scaled(gradients: Sequence[Tensor], max_norm: float) -> list[Tensor]:
    """short gradients are made longer: the scale is at most 1"""
    scale = max_norm / _norm(gradients)
    return [g * scale for g in gradients]


@listed("36.2", of="clipped")
def without_root(gradients: Sequence[Tensor], max_norm: float) -> list[Tensor]:
    """the sum of squares takes the place of the length: its root is missing"""
    scale = (max_norm / _norm(gradients) ** 2).clamp(max=1.0)
    return [g * scale for g in gradients]


@listed("36.2", of="clipped")
def lengths_added(gradients: Sequence[Tensor], max_norm: float) -> list[Tensor]:
    """the lengths of the tensors are added: their squares add up, and the root comes last"""
    scale = (max_norm / torch.stack([g.norm() for g in gradients]).sum()).clamp(max=1.0)
    return [g * scale for g in gradients]


@listed("36.2", of="clipped")
def values_clamped(gradients: Sequence[Tensor], max_norm: float) -> list[Tensor]:
    """each element is cut off at max_norm, which changes the direction: scale them all alike"""
    return [g.clamp(-max_norm, max_norm) for g in gradients]


@listed("36.2", of="clipped")
def with_an_if(gradients: Sequence[Tensor], max_norm: float) -> list[Tensor]:
    """an `if` depends on a tensor, or a tensor becomes a number"""
    norm = _norm(gradients)
    if norm > max_norm:
        return [g * (max_norm / norm) for g in gradients]
    return [g * 1.0 for g in gradients]


# --- 3: Lion --------------------------------------------------------------------------------------


def _lion(
    *, u: str = "beta1 * m + (1 - beta1) * g", step: str = "lr * ((u > 0) - (u < 0) + decay * w)",
    mean: str = "beta2 * m + (1 - beta2) * g",
) -> str:
    return f"float u = {u}; w -= {step}; m = {mean};"


@listed("36.3", of="lion_body")
def without_sign() -> str:
    """the step goes along u itself: only its sign counts"""
    return _lion(step="lr * (u + decay * w)")


@listed("36.3", of="lion_body")
def betas_exchanged() -> str:
    """beta1 and beta2 are exchanged: u takes beta1, the average beta2"""
    return _lion(u="beta2 * m + (1 - beta2) * g", mean="beta1 * m + (1 - beta1) * g")


@listed("36.3", of="lion_body")
def average_first() -> str:
    """the average is changed before u is computed: u takes the old one"""
    return ("m = beta2 * m + (1 - beta2) * g; float u = beta1 * m + (1 - beta1) * g; "
            "w -= lr * ((u > 0) - (u < 0) + decay * w);")


@listed("36.3", of="lion_body")
def decay_without_rate() -> str:
    """the decay is not multiplied by the learning rate"""
    return _lion(step="lr * ((u > 0) - (u < 0)) + decay * w")


@listed("36.3", of="lion_body")
def average_keeps_u() -> str:
    """u becomes the new average: the average has a sum of its own, with beta2"""
    return _lion(mean="u")


@listed("36.3", of="lion_body")
def uphill() -> str:
    """the step goes along the gradient, uphill: subtract it"""
    return _lion(step="lr * (decay * w - ((u > 0) - (u < 0)))")


# --- 4: right for multiples of four ---------------------------------------------------------------

_LAST_LOOP = "i < size; i += THREADS) chunk.step(i, rule);"


@listed("36.4", of="ragged_edit")
def slow_but_right() -> tuple[str, str]:
    """the numbers stay right, such as if all elements go one by one: the last ones must be left
    out"""
    return "chunk.is_aligned() ? size / VECTOR * VECTOR : 0", "0"


@listed("36.4", of="ragged_edit")
def all_wrong() -> tuple[str, str]:
    """every tensor comes out wrong: change only what happens after the last whole vector"""
    return "mean += (1 - beta1) * (g - mean);", "mean += (1 - beta1) * g;"


@listed("36.4", of="ragged_edit")
def multiples_wrong() -> tuple[str, str]:
    """the two kinds of sizes are exchanged: multiples of four come out wrong"""
    return _LAST_LOOP, f"{_LAST_LOOP} if (size % VECTOR == 0) chunk.step(threadIdx.x, rule);"


# --- 5: rounding at random ------------------------------------------------------------------------


@listed("36.5", of="round_at_random")
def to_nearest(x: Tensor, noise: Tensor) -> Tensor:
    """the noise is not used: `.bfloat16()` alone rounds to the nearest"""
    return x.bfloat16()


@listed("36.5", of="round_at_random")
def always_down(x: Tensor, noise: Tensor) -> Tensor:
    """the lower half is cut off without the noise: every number gets closer to 0"""
    return (x.view(torch.int32) & -65536).view(torch.float32).bfloat16()


@listed("36.5", of="round_at_random")
def not_cut_off(x: Tensor, noise: Tensor) -> Tensor:
    """the lower half is not cut off, so that `.bfloat16()` rounds a second time"""
    return (x.view(torch.int32) + noise.int()).view(torch.float32).bfloat16()


@listed("36.5", of="round_at_random")
def noise_to_the_value(x: Tensor, noise: Tensor) -> Tensor:
    """the noise is added to the number, not to its bits"""
    bits = (x + noise / 65536).view(torch.int32)
    return (bits & -65536).view(torch.float32).bfloat16()


@listed("36.5", of="round_at_random")
def noise_subtracted(x: Tensor, noise: Tensor) -> Tensor:
    """the noise is subtracted: cutting off already rounds down, so the noise must be added"""
    bits = x.view(torch.int32) - noise.int()
    return (bits & -65536).view(torch.float32).bfloat16()


# --- 6: a size at which eps matters ---------------------------------------------------------------


@listed("36.6", of="my_scale")
def far_above_eps() -> float:
    """the gradients are far above eps, so that their size cancels in m/√v"""
    return 1e3


@listed("36.6", of="my_scale")
def near_eps() -> float:
    """the gradients are still larger than eps, which is 1e-8: choose smaller ones"""
    return 1e-7


@listed("36.6", of="my_scale")
def no_gradients() -> float:
    """the gradients are 0 or negative: a size is above 0"""
    return 0.0
