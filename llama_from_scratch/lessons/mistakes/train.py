"""Mistakes that readers make in chapter 17."""

import math

import torch
from torch import Tensor

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


# --- 1: perplexity --------------------------------------------------------------------------------


@listed("17.1", of="perplexity")
def mean_of_exponentials(nats: list[float]) -> float:
    """the mean is taken of e^loss instead of the losses: first the mean, then the exponential"""
    return sum(map(math.exp, nats)) / len(nats)


@listed("17.1", of="perplexity")
def sum_without_count(nats: list[float]) -> float:
    """the nats are summed and not divided by their number"""
    return math.exp(sum(nats))


@listed("17.1", of="perplexity")
def base_two(nats: list[float]) -> float:
    """2 is raised to the mean: that is right for bits, and these are nats"""
    return 2 ** (sum(nats) / len(nats))


@listed("17.1", of="perplexity")
def loss_itself(nats: list[float]) -> float:
    """the mean of the nats is returned: its exponential is asked for"""
    return sum(nats) / len(nats)


@listed("17.1", of="perplexity")
def mean_probability(nats: list[float]) -> float:
    """the sign is wrong: e^(-loss) is a probability, and the perplexity is 1 divided by it"""
    return math.exp(-sum(nats) / len(nats))


# --- 2: clipping ----------------------------------------------------------------------------------


def _scaled(grads: list[Tensor], factor: Tensor | float) -> list[Tensor]:
    return [grad * factor for grad in grads]


@listed("17.2", of="clip")
def each_alone(grads: list[Tensor], max_norm: float) -> list[Tensor]:
    """each gradient is clipped by its own length: all of them together are one vector"""
    return [grad * min(1.0, max_norm / grad.norm().item()) for grad in grads]


@listed("17.2", of="clip")
def each_number(grads: list[Tensor], max_norm: float) -> list[Tensor]:
    """each number is cut to `max_norm`, which changes the direction of the vector"""
    return [grad.clamp(-max_norm, max_norm) for grad in grads]


@listed("17.2", of="clip")
def also_lengthened(grads: list[Tensor], max_norm: float) -> list[Tensor]:
    """shorter gradients are scaled up to `max_norm`: they are to be left as they are"""
    return _scaled(grads, max_norm / torch.cat([grad.flatten() for grad in grads]).norm())


@listed("17.2", of="clip")
def lengths_added(grads: list[Tensor], max_norm: float) -> list[Tensor]:
    """the lengths of the parts are added: their squares are, and then the root is taken"""
    return _scaled(grads, min(1.0, max_norm / sum(grad.norm().item() for grad in grads)))


@listed("17.2", of="clip")
def root_forgotten(grads: list[Tensor], max_norm: float) -> list[Tensor]:
    """the root of the sum of squares is not taken, so the length is too large"""
    return _scaled(grads, min(1.0, max_norm / sum(grad.square().sum().item() for grad in grads)))


# --- 3: warm-up, stable, decay --------------------------------------------------------------------


def _stable(
    step: int, n_steps: int, peak: float, n_warmup: int, *, left: float,
) -> float:
    return peak * (step + 1) / (n_warmup + 1) if step < n_warmup else peak * left


@listed("17.3", of="stable_schedule")
def zero_at_the_last_step(step: int, n_steps: int, peak: float, n_warmup: int) -> float:
    """the rate is 0 at the last step, n_steps - 1: it is to be 0 one step later"""
    left = min(1.0, (n_steps - 1 - step) / (n_steps / 5))
    return _stable(step, n_steps, peak, n_warmup, left=left)


@listed("17.3", of="stable_schedule")
def not_held_at_the_peak(step: int, n_steps: int, peak: float, n_warmup: int) -> float:
    """the line is not cut off at the peak, so the rate starts far above it"""
    return _stable(step, n_steps, peak, n_warmup, left=(n_steps - step) / (n_steps / 5))


@listed("17.3", of="stable_schedule")
def falls_from_the_warmup(step: int, n_steps: int, peak: float, n_warmup: int) -> float:
    """the rate falls right after the warm-up: it is to stay at the peak for four fifths"""
    return _stable(step, n_steps, peak, n_warmup, left=(n_steps - step) / (n_steps - n_warmup))


@listed("17.3", of="stable_schedule")
def cosine_at_the_end(step: int, n_steps: int, peak: float, n_warmup: int) -> float:
    """the last fifth falls along a cosine: a straight line is asked for"""
    left = min(1.0, (n_steps - step) / (n_steps / 5))
    return _stable(step, n_steps, peak, n_warmup, left=(1 - math.cos(math.pi * left)) / 2)


@listed("17.3", of="stable_schedule")
def warmup_from_zero(step: int, n_steps: int, peak: float, n_warmup: int) -> float:
    """the warm-up begins at 0, so the first step changes nothing"""
    if step < n_warmup:
        return peak * step / n_warmup
    return peak * min(1.0, (n_steps - step) / (n_steps / 5))


@listed("17.3", of="stable_schedule")
def peak_before_the_warmup_ends(step: int, n_steps: int, peak: float, n_warmup: int) -> float:
    """the warm-up is divided by n_warmup, so it reaches the peak one step too early"""
    if step < n_warmup:
        return peak * (step + 1) / n_warmup
    return peak * min(1.0, (n_steps - step) / (n_steps / 5))


# --- 4: Adam without its corrections --------------------------------------------------------------


def _adamw(
    weight: float, grads: list[float], lr: float, beta1: float, beta2: float, eps: float,
    decay: float, *, is_mean_corrected: bool = False, is_square_corrected: bool = False,
    root: float = 0.5,
) -> float:
    mean = square = 0.0
    for t, grad in enumerate(grads, start=1):
        mean = beta1 * mean + (1 - beta1) * grad
        square = beta2 * square + (1 - beta2) * grad**2
        first = mean / (1 - beta1**t) if is_mean_corrected else mean
        second = square / (1 - beta2**t) if is_square_corrected else square
        weight = weight * (1 - lr * decay) - lr * first / (second**root + eps)
    return weight


@listed("17.4", of="adamw_uncorrected")
def still_corrected(
    weight: float, grads: list[float], lr: float, beta1: float = 0.9, beta2: float = 0.95,
    eps: float = 1e-8, decay: float = 0.1,
) -> float:
    """both means are still divided by 1 - beta^t: leave both divisions out"""
    return _adamw(weight, grads, lr, beta1, beta2, eps, decay,
                  is_mean_corrected=True, is_square_corrected=True)


@listed("17.4", of="adamw_uncorrected")
def mean_still_corrected(
    weight: float, grads: list[float], lr: float, beta1: float = 0.9, beta2: float = 0.95,
    eps: float = 1e-8, decay: float = 0.1,
) -> float:
    """the mean of the gradients is still divided by 1 - beta1^t"""
    return _adamw(weight, grads, lr, beta1, beta2, eps, decay, is_mean_corrected=True)


@listed("17.4", of="adamw_uncorrected")
def square_still_corrected(
    weight: float, grads: list[float], lr: float, beta1: float = 0.9, beta2: float = 0.95,
    eps: float = 1e-8, decay: float = 0.1,
) -> float:
    """the mean of the squares is still divided by 1 - beta2^t"""
    return _adamw(weight, grads, lr, beta1, beta2, eps, decay, is_square_corrected=True)


@listed("17.4", of="adamw_uncorrected")
def root_of_squares_forgotten(
    weight: float, grads: list[float], lr: float, beta1: float = 0.9, beta2: float = 0.95,
    eps: float = 1e-8, decay: float = 0.1,
) -> float:
    """the mean is divided by the mean of the squares and not by its root"""
    return _adamw(weight, grads, lr, beta1, beta2, eps, decay, root=1.0)


@listed("17.4", of="adamw_uncorrected")
def decay_forgotten(
    weight: float, grads: list[float], lr: float, beta1: float = 0.9, beta2: float = 0.95,
    eps: float = 1e-8, decay: float = 0.1,
) -> float:
    """the weight does not decay: only the two divisions are to be left out"""
    return _adamw(weight, grads, lr, beta1, beta2, eps, 0.0)


# --- 5: steps for the same cost -------------------------------------------------------------------


@listed("17.5", of="steps_for_the_same_cost")
def models_exchanged(small: LlamaConfig, large: LlamaConfig, n_steps: int) -> int:
    """the models are exchanged: the small one can take more steps and not fewer"""
    return n_steps * small.n_params // large.n_params


@listed("17.5", of="steps_for_the_same_cost")
def rounded_up(small: LlamaConfig, large: LlamaConfig, n_steps: int) -> int:
    """the number is rounded up, so the last step costs more than there is"""
    return -(-n_steps * large.n_params // small.n_params)


@listed("17.5", of="steps_for_the_same_cost")
def by_widths(small: LlamaConfig, large: LlamaConfig, n_steps: int) -> int:
    """the widths are compared: the cost of a step grows with the number of parameters"""
    return n_steps * large.dim // small.dim


@listed("17.5", of="steps_for_the_same_cost")
def whole_ratio_first(small: LlamaConfig, large: LlamaConfig, n_steps: int) -> int:
    """the ratio is rounded before it is multiplied by the steps: round last"""
    return n_steps * (large.n_params // small.n_params)
