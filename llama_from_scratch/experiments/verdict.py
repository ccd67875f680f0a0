"""Is the difference between two variants larger than the spread of their seeds?

`judge` is a two-sided t test with pooled variance. It assumes that both variants spread equally
over their seeds, so one changed run can be judged against several seeds of the baseline. The test
has n1 + n2 - 2 degrees of freedom, and needs at least one.

How often it answers "different", measured with 200 draws of normal numbers at level 0.05. "A + B"
is A seeds of the baseline and B of the changed variant. Differences are in standard deviations.

    seeds    no difference    difference of 5    no difference, changed spreads 3 times as much
    2 + 2            3.0 %             75.0 %                                             6.5 %
    3 + 3            4.0 %             98.5 %                                             5.5 %
    1 + 5            5.0 %             95.0 %                                             0.5 %
    5 + 1            3.0 %             92.5 %                                            34.5 %

With equal spreads, false alarms are as rare as the level says. With unequal ones they are nearly
so if both variants have the same number of seeds. A single run of the variant that spreads more
often looks different where nothing is: give both variants the same number of seeds.

Notebook 09.
"""

import math
from collections.abc import Sequence

from llama_from_scratch.config import record

LEVEL = 0.05
"""How often `judge` may see a difference where there is none."""
_FEW = 2
"""Up to this many degrees of freedom, the words name the smallest difference that would count."""


@record
class Judgment:
    """What the seeds say about two variants.

    `difference`: mean of the changed minus mean of the baseline. `low`, `high`: its confidence
    interval, which holds the true difference in 1 - `level` of the cases. `p_value`: how often
    equal variants would differ at least this much. These three are NaN with one seed each.
    `needed`: the smallest difference that would have counted; NaN with one seed each.
    """

    difference: float
    low: float
    high: float
    p_value: float
    level: float
    needed: float
    n_baseline: int
    n_changed: int

    @property
    def is_judged(self) -> bool:
        """Whether there were enough seeds for a verdict."""
        return self.n_baseline + self.n_changed > 2

    @property
    def is_different(self) -> bool:
        return self.is_judged and self.p_value < self.level

    @property
    def is_lower(self) -> bool:
        return self.is_different and self.difference < 0

    @property
    def short(self) -> str:
        """The verdict in a word or two, for a table."""
        if not self.is_judged:
            return "too few seeds"
        if not self.is_different:
            return "not told apart"
        return "lower" if self.is_lower else "higher"

    @property
    def words(self) -> str:
        """The verdict in a sentence."""
        if not self.is_judged:
            return ("one seed each says nothing about the spread; run more: seeds=3. "
                    f"The difference of these two runs is {self.difference:+.3g}")
        interval = (f"{self.difference:+.3g} ({100 * (1 - self.level):.4g} % interval "
                    f"{self.low:+.3g} to {self.high:+.3g})")
        if self.low == self.high:
            return (f"{self.short}: {self.difference:+.3g}; the runs of each side end with equal "
                    "numbers, so check that the seed has an effect")
        if self.is_different:
            return f"{self.short}: {interval}, more than the spread of the seeds explains"
        told = f"not told apart: {interval}; the spread of the seeds can explain the difference"
        if self.n_baseline + self.n_changed - 2 <= _FEW:
            told += (f". With {self.n_baseline} + {self.n_changed} seeds, only a difference of "
                     f"{self.needed:.3g} would have counted; run more: seeds=5")
        return told


def judge(
    baseline: Sequence[float], changed: Sequence[float], *, level: float = LEVEL
) -> Judgment:
    """Returns whether `changed` differs from `baseline`, given one final value per seed.

    `level`: how often the verdict may be "different" where there is no difference. For several
    comparisons at once, divide it by their number (Bonferroni), as `compare` does.
    Raises ValueError for a side without values, for values that are not finite, and for a level
    outside (0, 1). Source: Student, "The probable error of a mean", 1908.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is a probability between 0 and 1, such as {LEVEL}; got {level}")
    for name, values in (("baseline", baseline), ("changed", changed)):
        if not len(values):
            raise ValueError(f"{name} needs the final value of at least one run; got none")
        if odd := [value for value in values if not math.isfinite(value)]:
            raise ValueError(f"{name} needs finite values; got {odd[0]}. Leave diverged runs out, "
                             "and say how many there are")
    difference = _mean(changed) - _mean(baseline)
    low, high, p_value, needed = _interval(baseline, changed, difference, level)
    return Judgment(difference=difference, low=low, high=high, p_value=p_value, level=level,
                   needed=needed, n_baseline=len(baseline), n_changed=len(changed))


def spread(values: Sequence[float]) -> float:
    """Returns the standard deviation over seeds (with n - 1); NaN for fewer than two values."""
    return math.sqrt(_squares(values) / (len(values) - 1)) if len(values) > 1 else math.nan


def _interval(
    baseline: Sequence[float], changed: Sequence[float], difference: float, level: float
) -> tuple[float, float, float, float]:
    """Returns low, high, p value, and the smallest difference that counts."""
    n, m = len(baseline), len(changed)
    freedom = n + m - 2
    if freedom < 1:
        return (math.nan,) * 4
    pooled = math.sqrt((_squares(baseline) + _squares(changed)) / freedom)
    error = pooled * math.sqrt(1 / n + 1 / m)
    if error == 0:
        return difference, difference, float(difference == 0), 0.0
    student = _student()
    needed = error * float(student.ppf(1 - level / 2, freedom))
    p_value = 2 * float(student.sf(abs(difference) / error, freedom))
    return difference - needed, difference + needed, p_value, needed


def _student():
    try:
        from scipy.stats import t
    except ImportError as error:
        raise ValueError("whether a difference is larger than the spread of the seeds is judged "
                         f"with the package scipy, which is not installed ({error}). Run pip "
                         "install scipy") from error
    return t


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _squares(values: Sequence[float]) -> float:
    """Returns the sum of squared distances from the mean; exactly 0 for equal values."""
    if all(value == values[0] for value in values):
        return 0.0
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values)
