import math

import pytest

from llama_from_scratch.parallel import interruptions
from llama_from_scratch.parallel.interruptions import (
    UNEXPECTED,
    best_interval_s,
    between_s,
    live,
    useful_share,
)

HOUR = 3600.0


def test_the_counts_are_those_of_the_paper():
    """466 interruptions, of which 47 were planned; about 78 % of the others were the hardware."""
    assert sum(UNEXPECTED.values()) == 466 - 47
    not_hardware = ("software bug", "unplanned host maintenance", "NCCL watchdog timeout",
                    "dependency")
    share = 1 - sum(UNEXPECTED[cause] for cause in not_hardware) / sum(UNEXPECTED.values())
    assert round(100 * share) in (77, 78)


def test_many_gpus_fail_as_often_as_all_of_them_together():
    assert between_s(16_384) == pytest.approx(54 * 24 * HOUR / 419)
    assert between_s(1) == pytest.approx(16_384 * between_s(16_384))


@pytest.mark.parametrize(("save_s", "restart_s"), [(0.0, 0.0), (20.0, 300.0), (30.0, 600.0)])
def test_the_formula_is_what_a_simulation_finds(save_s, restart_s):
    how = dict(interval_s=600.0, save_s=save_s, restart_s=restart_s, between_s=3 * HOUR)
    lived = live(useful_s=20_000 * HOUR, seed=0, **how)
    assert lived.useful_share == pytest.approx(useful_share(**how), abs=0.015)
    assert lived.n_interruptions * how["between_s"] == pytest.approx(
        lived.useful_s + lived.saving_s + lived.lost_s, rel=0.05)


@pytest.mark.parametrize(("save_s", "mean_s"), [(5.0, HOUR), (60.0, 3 * HOUR)])
def test_no_other_interval_is_better(save_s, mean_s):
    best = best_interval_s(save_s=save_s, between_s=mean_s)

    def share(interval_s):
        return useful_share(interval_s=interval_s, save_s=save_s, restart_s=300.0,
                            between_s=mean_s)

    assert all(share(best) > share(best * factor) for factor in (0.5, 0.9, 1.1, 2.0))
    assert best == math.sqrt(2 * save_s * mean_s)


def test_a_training_that_is_interrupted_too_often_is_of_no_use():
    assert useful_share(interval_s=HOUR, save_s=1.0, restart_s=HOUR, between_s=HOUR) == 0


@pytest.mark.parametrize(("change", "told"), [
    (dict(interval_s=0.0), "got interval_s=0.0"), (dict(save_s=-1.0), "got save_s=-1.0"),
    (dict(between_s=math.inf), "got between_s=inf"), (dict(restart_s=math.nan), "restart_s=nan")])
def test_a_time_that_is_none_is_refused(change, told):
    times = dict(interval_s=1.0, save_s=1.0, restart_s=1.0, between_s=1.0) | change
    with pytest.raises(ValueError, match=told):
        useful_share(**times)
    with pytest.raises(ValueError, match=told):
        live(useful_s=1.0, seed=0, **times)


def test_a_training_without_gpus_is_refused():
    with pytest.raises(ValueError, match="at least one GPU; got 0"):
        interruptions.between_s(0)
