"""The learning rate of each step: a short climb, then half a cosine down to a tenth.

Adam's averages are worthless in the first steps, so those steps are kept small. Later, large steps
only circle around the minimum that small ones would reach, so they shrink. The rate is a function
of the step alone, so a run has nothing to save or resume for it.

Notebook 17. Every Llama. Sources: Loshchilov and Hutter, SGDR, arXiv:1608.03983, eq. 5;
arXiv:2302.13971, section 2.3.
"""

import math


def learning_rate(
    step: int, *, n_steps: int, peak: float, n_warmup: int, final_ratio: float = 0.1
) -> float:
    """The rate of step 0, 1, ..., n_steps - 1.

    It rises in a straight line for `n_warmup` steps and then falls along half a cosine. Step
    `n_warmup` has the rate `peak`, the last step exactly `final_ratio * peak`; Llama ends at a
    tenth.
    Raises ValueError if `step` is outside the run, or if the warm-up is not shorter than the run.
    """
    if not 0 <= step < n_steps:
        raise ValueError(f"steps of this run go from 0 to {n_steps - 1}; got {step}")
    if not 0 <= n_warmup < n_steps:
        raise ValueError(f"the warm-up must be shorter than the run; got {n_warmup} of {n_steps} "
                         "steps. Warm up for a tenth")
    if step < n_warmup:
        return peak * (step + 1) / (n_warmup + 1)
    progress = (step - n_warmup) / max(n_steps - 1 - n_warmup, 1)
    return peak * (final_ratio + (1 - final_ratio) * (1 + math.cos(math.pi * progress)) / 2)
