"""The world of one rank, and of several that have met."""

import on_ranks
import pytest
import torch

from llama_from_scratch.parallel.world import alone


def about(world):
    world.kept.seen = world.rank
    return (world.rank, world.size, world.ranks, world.name, str(world.device), repr(world),
            world.kept.seen, world.process_group is not None)


def test_every_rank_knows_its_number_and_the_others():
    found = on_ranks.launch(about, 2)
    assert found == [(rank, 2, (0, 1), "world", "cpu", f"RankGroup('world', rank {rank} of 2)",
                      rank, True) for rank in range(2)]


def test_a_world_of_one_rank_needs_no_others_and_sends_nothing():
    world = alone()
    x = torch.arange(4.0)
    assert world.all_reduce(x) is x and world.gather_objects("a") == ["a"]
    for copy in (world.all_gather(x), world.reduce_scatter(x), world.all_to_all(x)):
        assert copy is not x and torch.equal(copy, x)
    world.barrier()
    assert world.broadcast(x) is x and world.log.calls == []


@pytest.mark.parametrize("size", (1, 2))
def test_kept_lives_as_long_as_the_world(size):
    assert on_ranks.launch(about, size)[-1][6] == size - 1
    assert not vars(alone().kept)
