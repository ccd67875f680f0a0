"""The learning rate of each step: a short linear rise, then half a cosine down to a tenth.

Adam's averages are unreliable in the first steps, so those steps are kept small. Later, large steps
only circle around the minimum that smaller steps would reach, so the rate falls. The rate depends
only on the step, so a run has nothing to save or resume for it.

Notebook 17. Every Llama. Sources: Loshchilov and Hutter, SGDR, arXiv:1608.03983, eq. 5;
arXiv:2302.13971, section 2.3.
"""

import math


def learning_rate(
    step: int, *, n_steps: int, peak: float, n_warmup: int, final_ratio: float = 0.1
) -> float:
    """Returns the learning rate of a step, one of 0, 1, ..., n_steps - 1.

    It rises in a straight line for `n_warmup` steps and then falls along half a cosine. Step
    `n_warmup` has the rate `peak`, and the last step exactly `final_ratio * peak`. Llama ends at a
    tenth.
    Raises ValueError if `step` is outside the run, or if the warm-up is not shorter than the run.
    """
    if not 0 <= step < n_steps:
        raise ValueError(f"steps of this run go from 0 to {n_steps - 1}; got {step}")
    if not 0 <= n_warmup < n_steps:
        raise ValueError(f"the warm-up must be shorter than the run; got {n_warmup} of {n_steps} "
                         "steps. A tenth of the run is usual")
    if step < n_warmup:
        return peak * (step + 1) / (n_warmup + 1)
    progress = (step - n_warmup) / max(n_steps - 1 - n_warmup, 1)
    return peak * (final_ratio + (1 - final_ratio) * (1 + math.cos(math.pi * progress)) / 2)
