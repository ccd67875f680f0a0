"""`sizes`: what a rank has is what `shard` leaves it with, on a mesh of any size."""

import pytest
from llama4_twin import toy
from paper_mesh import on_paper

from llama_from_scratch import family
from llama_from_scratch.model.unwritten import unwritten
from llama_from_scratch.parallel import expert_parallel, sizes, tensor_parallel
from llama_from_scratch.parallel.mesh import Mesh

CASES = [(toy(step=2), Mesh(dp=4, ep=2)), (toy(step=2), Mesh(tp=2, dp=4, ep=4)),
         (toy(step=2), Mesh(tp=2)), (family.tiny("llama-3"), Mesh(tp=4, dp=2))]


@pytest.mark.parametrize(("config", "mesh"), CASES, ids=str)
def test_the_elements_of_a_rank_are_those_of_a_model_that_was_cut(config, mesh):
    model, axes = unwritten(config), on_paper(mesh)
    expert_parallel.split(model, axes.ep)
    if mesh.tp < 4:  # on paper there is no group for copies of heads
        tensor_parallel.split(model, axes.tp)
        assert sizes.local_sizes(config, mesh) == {
            name: p.numel() for name, p in model.named_parameters()}
    assert {name: n for part in sizes.divided(config, mesh) for name, n in part.local.items()
            } == sizes.local_sizes(config, mesh)


def test_experts_are_divided_by_fewer_ranks_and_padded_for_them():
    config = toy(step=2, dim=36, n_heads=2, n_experts=2)
    rest, experts = sizes.divided(config, Mesh(dp=10, ep=2))
    assert set(experts.local) == set(sizes.names_of_experts(config))
    assert (rest.shards, rest.gradients, rest.n_ranks) == ("dp", "data", 10)
    assert (experts.shards, experts.gradients, experts.n_ranks) == (
        "expert_shards", "expert_shards", 5)
    one = 3 * 36 * 24  # each rank has one of the two experts, in the layers 1 and 3
    assert experts.units == {"root": 0, "layers.1": one + 3, "layers.3": one + 3}
    assert experts.n_owned == 2 * (one + 3) // 5
    assert all(n % 10 == 0 for n in rest.units.values())


def test_with_copies_of_the_whole_their_gradients_are_added_up_too():
    _, experts = sizes.divided(toy(step=2), Mesh(dp=2, ep=2, replicate=2))
    assert (experts.shards, experts.gradients) == ("expert_shards", "expert_gradients")


def test_without_expert_parallelism_there_is_one_kind():
    (all_of_them,) = sizes.divided(toy(step=2), Mesh(dp=2))
    assert set(sizes.names_of_experts(toy(step=2))) < set(all_of_them.local)
    with pytest.raises(ValueError, match="got ep=3 for the 4 experts"):
        sizes.divided(toy(step=2), Mesh(dp=3, ep=3))
