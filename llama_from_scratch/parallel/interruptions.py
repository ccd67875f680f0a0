"""How often a large training is interrupted, and how much of its time remains useful.

A machine fails rarely, but a cluster has many of them: n GPUs have n times as many
interruptions as one. After one, all work since the last checkpoint is lost, on average half of the
interval between checkpoints, and the restart takes time, too. Saving more often loses less, but
each save takes time of its own. The best interval balances the two.

    useful share = 1 - (restart + interval / 2) / between - save / interval

Notebook 47. Sources: The Llama 3 herd of models, arXiv:2407.21783, section 3.3.4 and table 5 (the
counts); J. W. Young, A first order approximation to the optimum checkpoint interval, 1974,
doi:10.1145/361147.361115 (the best interval).
"""

import math
import random
from collections.abc import Mapping
from types import MappingProxyType

from llama_from_scratch.config import record

Seconds = float | int
N_DAYS, N_GPUS = 54, 16_384
"""The part of the training of Llama 3 405B in which the interruptions were counted."""
UNEXPECTED: Mapping[str, int] = MappingProxyType({
    "faulty GPU": 148, "GPU memory (HBM3)": 72, "software bug": 54, "network switch or cable": 35,
    "unplanned host maintenance": 32, "GPU SRAM memory": 19, "GPU system processor": 17,
    "network card": 7, "NCCL watchdog timeout": 7, "silent data corruption": 6,
    "GPU thermal interface or sensor": 6, "SSD": 3, "power supply": 3, "server chassis": 2,
    "IO expansion board": 2, "dependency": 2, "CPU": 2, "system memory": 2})
"""The unexpected interruptions by cause. (The paper also prints a share of 30.1 % for the first
one. That is not 148 of 419.)"""


def between_s(n_gpus: int) -> float:
    """Returns the mean number of seconds between two interruptions, at the rate of that training.
    """
    if n_gpus < 1:
        raise ValueError(f"a training has at least one GPU; got {n_gpus}")
    return N_DAYS * 86_400 / sum(UNEXPECTED.values()) * N_GPUS / n_gpus


def useful_share(
    *, interval_s: Seconds, save_s: Seconds, restart_s: Seconds, between_s: Seconds
) -> float:
    """Returns the share of the time that becomes training, by the formula above.

    `interval_s`: of training from one checkpoint to the next. `save_s`: how long training stops for
    a save. `restart_s`: from an interruption to the next step. `between_s`: the mean time between
    interruptions. The formula is for interruptions that are rare; it is never below 0 here.
    Raises ValueError for a time that is negative, and for an interval or a mean of 0.
    """
    _refuse(interval_s=interval_s, save_s=save_s, restart_s=restart_s, between_s=between_s)
    return max(1 - (restart_s + interval_s / 2) / between_s - save_s / interval_s, 0.0)


def best_interval_s(*, save_s: Seconds, between_s: Seconds) -> float:
    """Returns the interval between checkpoints for which the useful share is largest."""
    _refuse(interval_s=1.0, save_s=save_s, restart_s=0.0, between_s=between_s)
    return math.sqrt(2 * save_s * between_s)


@record
class Lived:
    """A training that was interrupted at random. The times are in seconds.

    `useful_s` + `saving_s` + `lost_s` + `restarting_s` is all of its time.
    """

    useful_s: float
    saving_s: float
    lost_s: float
    restarting_s: float
    n_interruptions: int

    @property
    def useful_share(self) -> float:
        total_s = self.useful_s + self.saving_s + self.lost_s + self.restarting_s
        return self.useful_s / total_s


def live(
    *, useful_s: Seconds, interval_s: Seconds, save_s: Seconds, restart_s: Seconds,
    between_s: Seconds, seed: int,
) -> Lived:
    """Returns what happens to a training until `useful_s` seconds of it are done and saved.

    Interruptions come at random moments, independent of each other, also while it saves. The other
    arguments are as in `useful_share`, and a restart is not interrupted.
    """
    _refuse(interval_s=interval_s, save_s=save_s, restart_s=restart_s, between_s=between_s)
    draw = random.Random(seed)
    done_s = saving_s = lost_s = restarting_s = 0.0
    n, left_s = 0, draw.expovariate(1 / between_s)
    while done_s < useful_s:
        if (needed_s := interval_s + save_s) <= left_s:
            left_s -= needed_s
            done_s, saving_s = done_s + interval_s, saving_s + save_s
        else:
            lost_s, restarting_s, n = lost_s + left_s, restarting_s + restart_s, n + 1
            left_s = draw.expovariate(1 / between_s)
    return Lived(useful_s=done_s, saving_s=saving_s, lost_s=lost_s, restarting_s=restarting_s,
                 n_interruptions=n)


def _refuse(
    *, interval_s: Seconds, save_s: Seconds, restart_s: Seconds, between_s: Seconds
) -> None:
    times = dict(interval_s=interval_s, save_s=save_s, restart_s=restart_s, between_s=between_s)
    wrong = [f"{name}={value}" for name, value in times.items()
             if not math.isfinite(value) or value < 0
             or (value == 0 and name in ("interval_s", "between_s"))]
    if wrong:
        raise ValueError("times are seconds from 0 on, and an interval and the mean time between "
                         f"interruptions are longer than 0; got {', '.join(wrong)}")
