"""A contest is won by the fastest candidate that is right, and its default is not changed by it."""

import json

import pytest
import torch

from llama_from_scratch.kernels.trial import timing, tuning
from llama_from_scratch.kernels.trial.tuning import Candidate, Contest, decide

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """Gives the next of these medians to each measurement, and returns the list."""
    medians = []

    def timed(prepare):
        for call in prepare():
            call()
        median = medians.pop(0)
        return timing.Time(median=median, p20=median, p80=median)

    monkeypatch.setattr(timing, "time_graph", timed)
    monkeypatch.setattr(timing, "L2_BYTES", 1)
    return medians


def contest(*candidates, default="slow", **changes):
    square = lambda x: (x * x,)
    fields = {"name": "square 3x5", "size": (3, 5), "default": default, "candidates": candidates,
              "inputs": lambda size, draw: (draw(*size),), "exact": square, "plain": square}
    return Contest(**{**fields, **changes})


def candidate(name, way=lambda x: (x * x,)):
    return Candidate(name=name, way=way)


def refuses(x):
    raise ValueError("this rung takes rows of whole vectors\nand more")


def test_the_fastest_right_candidate_wins_and_the_better_of_two_rounds_counts(clock):
    clock += [10.0, 9.0, 8.0, 10.0, 5.0, 8.5]
    said = []
    found = decide(contest(candidate("slow"), candidate("fast"), candidate("other"),
                           candidate("wrong", lambda x: (x * x * 1.1,)),
                           candidate("narrow", refuses)), device=CPU, say=said.append)
    assert found.winner == "fast" and found.gain == 2.0 and not found.is_default_best
    assert {name: time.median for name, time in found.times.items()} == {
        "slow": 10.0, "fast": 5.0, "other": 8.0}
    assert found.complaints["narrow"] == "ValueError: this rung takes rows of whole vectors"
    assert found.complaints["wrong"].startswith("element ") and not clock
    assert said[1] == "  square 3x5, fast: 5.0 us"


def test_what_is_prepared_is_not_part_of_the_formula_and_one_set_is_enough_for_arithmetic(clock):
    clock += [10.0, 10.0]
    seen = []
    cube = candidate("slow", lambda x, square: (seen.append(x) or x * square,))
    decide(contest(cube, exact=lambda x: (x**3,), plain=lambda x: (x**3,), fits_cache=True,
                   prepare=lambda x: (x, x * x)), device=CPU, say=print)
    assert len(seen) == 1 + 2   # the check, and one call in each round


def test_a_gain_within_the_noise_keeps_the_default(clock):
    clock += [10.0, 9.9, 10.0, 9.9]
    found = decide(contest(candidate("slow"), candidate("fast")), device=CPU, say=print)
    assert found.winner == "fast" and found.is_default_best


@pytest.mark.parametrize(("default", "way", "why"), [
    ("slow", refuses, "ValueError: this rung"), ("slow", lambda x: (x,), "element 6 of the flat"),
    ("none", refuses, "it is not a candidate")])
def test_a_default_that_is_wrong_is_an_error(default, way, why):
    with pytest.raises(ValueError, match=f"{default} of square 3x5 is not: {why}"):
        decide(contest(candidate("slow", way), default=default), device=CPU, say=print)


def test_the_report_names_a_winner_that_is_not_in_the_table(clock):
    clock += [10.0, 5.0, 10.0, 5.0, 5.0, 10.0, 5.0, 10.0]
    two = contest(candidate("slow"), candidate("fast"))
    said = []
    steps = tuning.steps(CPU, contests=lambda device: [two, two])
    first, second = (step.run(said.append) for step in steps)
    assert "square 3x5: fast is 2.00 times as fast as slow, which the table takes" in said
    assert said[-1] == "square 3x5: slow, as in the table"
    data = json.loads(json.dumps(first.data))["decision"]
    assert data["winner"] == "fast" and data["times"]["slow"]["median"] == 10.0
    assert not data["is_default_best"] and second.data["decision"]["is_default_best"]
