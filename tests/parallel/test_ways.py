from fractions import Fraction

import pytest
import torch

from llama_from_scratch.lessons.figures.messages import trace
from llama_from_scratch.parallel import collectives, ways


def tree(x, group):
    """Up the tree and down again."""
    distance = 1
    while distance < group.size:
        if group.rank % (2 * distance) == distance:
            group.send(x, to=group.rank - distance)
        elif group.rank % (2 * distance) == 0 and group.rank + distance < group.size:
            x += group.receive(torch.empty_like(x), source=group.rank + distance)
        distance *= 2
    return collectives.broadcast(x, group)


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize(("way", "function"), [
    ("naive", collectives.naive_all_reduce), ("tree", tree), ("ring", collectives.all_reduce)])
def test_steps_and_bytes_are_counted_in_a_run_of_the_function(way, function, n_ranks):
    traced = trace(function, n_ranks)
    tensor = traced.before[0]
    found = ways.all_reduce(way, n_ranks, n_bytes=tensor.nbytes)
    largest = [max(message.content.nbytes for message in traced.messages if message.step == step)
               for step in range(traced.n_steps)]
    assert (found.n_steps, found.n_bytes) == (traced.n_steps, sum(largest))


def test_a_ring_sends_less_than_twice_the_tensor_with_any_number_of_ranks():
    assert ways.all_reduce("ring", 16_384, n_bytes=16_384).n_bytes == 2 * 16_383
    assert ways.all_reduce("ring", 3, n_bytes=1).n_bytes == Fraction(4, 3)


def test_seconds_are_steps_times_latency_and_bytes_by_bandwidth():
    found = ways.all_reduce("tree", 8, n_bytes=1000)
    assert found.seconds(latency_s=0.5, bytes_per_s=2000.0) == 6 * 0.5 + 6 * 0.5


def test_an_unknown_way_is_refused():
    with pytest.raises(ValueError, match="are naive, tree, ring; got 'star'"):
        ways.all_reduce("star", 2, n_bytes=1)
