"""Judges whether a kernel's result is right, by float64 and by eager PyTorch's own error.

A fixed tolerance is either too loose to catch a bug or too tight for ordinary rounding. So the
tolerance is measured. The plain PyTorch code runs once in float64 (the exact answer) and once in
the kernel's dtype (eager's error). A kernel may be off by twice that error, or three times for a
gradient, plus two steps of the dtype. A cap on the error of the whole tensor limits what a large
error of eager PyTorch allows.

Notebook 30. Source of the idea: the tests of FlashAttention (Dao et al., arXiv:2205.14135), which
compare in this way.
"""

import torch
from torch import Tensor

from llama_from_scratch.config import record

FORWARD_FACTOR, GRADIENT_FACTOR = 2, 3   # times eager's largest error
N_STEPS = 2           # a step: the distance from a number to the next one in the dtype
FORWARD_CAPS = {torch.float32: 1e-5, torch.bfloat16: 4e-3, torch.float16: 5e-4,
                torch.float64: 1e-13}
GRADIENT_CAPS = {torch.float32: 1e-5, torch.bfloat16: 6e-3, torch.float16: 7.5e-4,
                 torch.float64: 1e-13}
FEWEST_FOR_CAP = 64   # the caps are for averages; a few numbers may all be rounded badly


@record
class Verdict:
    """What `judge` found. `relative_error`: ||result - exact|| / ||exact||. Others are absolute."""

    error: float
    eager_error: float
    relative_error: float
    complaint: str

    @property
    def is_ok(self) -> bool:
        return not self.complaint

    @property
    def ratio(self) -> float:
        """The kernel's largest error divided by eager's; 1 if both are exact. Smaller is better."""
        if self.eager_error:
            return self.error / self.eager_error
        return 1.0 if self.error == 0 else float("inf")

    def __str__(self) -> str:
        return (f"{self.complaint or 'ok'}: largest error {self.error:.3g}, eager's "
                f"{self.eager_error:.3g}; relative error of the tensor {self.relative_error:.3g}")


def judge(result: Tensor, *, exact: Tensor, eager: Tensor, is_gradient: bool = False) -> Verdict:
    """Returns the verdict on a result. `exact` is in float64, and `eager` in the result's dtype.

    Each element may be off by `factor` times eager's largest error plus two steps of the dtype at
    that element. From 64 elements on, the relative error of the whole tensor has a cap too. Where
    the exact answer does not fit the dtype (it overflows, or is infinite or NaN), the result must
    be the same infinity or NaN. Use: `v = judge(...); assert v.is_ok, v`.

    Raises ValueError for tensors that cannot be compared: different shapes, an exact answer that is
    not float64, another dtype.
    """
    dtype = result.dtype
    if exact.dtype != torch.float64 or eager.dtype != dtype or dtype not in FORWARD_CAPS:
        raise ValueError("exact must be float64, and eager must have the result's dtype, one of "
                         f"{', '.join(map(str, FORWARD_CAPS))}; got exact {exact.dtype}, eager "
                         f"{eager.dtype}, result {dtype}")
    if not result.shape == exact.shape == eager.shape:
        raise ValueError("all three must have the same shape, because broadcasting would hide an "
                         f"error; got result {tuple(result.shape)}, exact "
                         f"{tuple(exact.shape)}, eager "
                         f"{tuple(eager.shape)}")
    result, exact, eager = (x.detach().flatten() for x in (result, exact, eager))
    as_stored = exact.to(dtype)
    fits = as_stored.isfinite()
    factor = GRADIENT_FACTOR if is_gradient else FORWARD_FACTOR
    cap = (GRADIENT_CAPS if is_gradient else FORWARD_CAPS)[dtype]

    off = (result.double() - exact).abs()[fits]
    eager_off = (eager.double() - exact).abs()[fits & eager.isfinite()]
    eager_error = eager_off.max().item() if len(eager_off) else 0.0
    allowed = factor * eager_error + N_STEPS * step_of(as_stored[fits])
    size, total = exact[fits].norm().item(), off.norm().item()
    relative = total / size if size else 0.0 if total == 0 else float("inf")

    excess = (off - allowed).nan_to_num(nan=float("inf"))       # a NaN is infinitely wrong
    complaint = ""
    if not ((result == as_stored) | (result.isnan() & as_stored.isnan()))[~fits].all():
        complaint = "an infinity or NaN is missing, or has the wrong sign"
    elif (excess > 0).any():
        worst = excess.argmax().item()
        at = fits.nonzero()[worst].item()
        complaint = (f"element {at} of the flattened tensor is {result[at].item():.6g}, must be "
                     f"{exact[at].item():.6g} within {allowed[worst].item():.3g}")
    elif len(off) >= FEWEST_FOR_CAP and not relative <= cap:
        complaint = f"the relative error of the whole tensor must be at most {cap:g}"
    return Verdict(error=off.max().item() if len(off) else 0.0, eager_error=eager_error,
                   relative_error=relative, complaint=complaint)


def step_of(x: Tensor) -> Tensor:
    """Returns the distance from each finite number to the next of its dtype, away from zero.

    It is in float64. The numbers between two powers of two are evenly spaced, and so are all
    numbers below the smallest normal number.
    """
    info = torch.finfo(x.dtype)
    _, exponent = torch.frexp(x.double().abs().clamp(min=info.smallest_normal))
    return torch.ldexp(torch.full_like(x, info.eps, dtype=torch.float64), exponent - 1)
