import pytest

from llama_from_scratch.generate.probing import N_TURNS, fastest


class Machine:
    """Ways that take the times they are given, by a clock of their own."""

    def __init__(self, *times_s):
        self.now_s, self.n_calls = 0.0, [0] * len(times_s)
        self.ways = [self.way(i, list(times)) for i, times in enumerate(times_s)]

    def way(self, i, times):
        def call():
            self.n_calls[i] += 1
            self.now_s += times.pop(0) if len(times) > 1 else times[0]
        return call

    def fastest(self):
        return fastest(self.ways, clock=lambda: self.now_s)


@pytest.mark.parametrize(("times_s", "first"), [
    ([[0.02], [0.01]], 1), ([[0.01], [0.02]], 0), ([[0.01], [0.01]], 0),
    ([[0.02], [0.03], [0.01]], 2)])
def test_the_way_with_the_least_time_is_found(times_s, first):
    assert Machine(*times_s).fastest() == first


def test_first_calls_and_slow_moments_do_not_decide():
    prepares = Machine([0.02, 0.009], [0.01, 0.011])
    assert prepares.fastest() == 0
    disturbed = Machine([0.01, 0.01, 9.0, 0.01], [0.011])
    disturbed.now_s = -9.0  # so that the slow moment does not end the turns
    assert disturbed.fastest() in (0, 1)
    busy = Machine([0.01, 0.04, 0.01, 0.04, 0.01], [0.015])
    assert busy.fastest() == 0


def test_a_hopeless_way_is_called_once():
    machine = Machine([0.318], [0.001])
    assert machine.fastest() == 1 and machine.n_calls == [1, 1]


def test_turns_end_when_the_time_is_over():
    machine = Machine([0.4], [0.5])
    assert machine.fastest() == 0 and machine.n_calls == [2, 2]
    short = Machine([0.001], [0.002])
    assert short.fastest() == 0 and short.n_calls == [N_TURNS + 1] * 2
