"""The grid of ranks, against the definition and against torch's own device mesh."""

import itertools

import on_ranks
import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from llama_from_scratch.parallel.launch import Ranks
from llama_from_scratch.parallel.mesh import AXES, GROUPS, Mesh, neighbors
from llama_from_scratch.parallel.world import World, alone

on_ranks.by_value(__name__)
MESHES = [Mesh(tp=tp, dp=dp, replicate=replicate)
          for tp, dp, replicate in itertools.product(range(1, 9), repeat=3)
          if tp * dp * replicate <= 8]
MESHES += [Mesh(tp=2, cp=2, pp=2, dp=2), Mesh(cp=2, pp=3, dp=2, ep=4), Mesh(pp=4), Mesh(cp=3),
           Mesh(dp=4, ep=2), Mesh(tp=2, cp=2, dp=3, replicate=2, ep=3)]


@pytest.fixture(scope="module")
def ranks():
    with Ranks(4, timeout_s=on_ranks.TIMEOUT_S) as ranks:
        yield ranks


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_coordinates_number_the_ranks_with_tp_innermost(mesh):
    places = [mesh.coordinates(rank) for rank in range(mesh.size)]
    assert [place["tp"] + mesh.tp * (place["cp"] + mesh.cp * (place["pp"] + mesh.pp * (
            place["dp"] + mesh.dp * place["replicate"]))) for place in places
            ] == list(range(mesh.size))
    for rank, place in enumerate(places):
        assert all(0 <= place[axis] < getattr(mesh, axis) for axis in AXES), rank


@pytest.mark.parametrize("axes", [("tp",), ("dp",), ("replicate",), ("dp", "replicate"),
                                  ("tp", "dp"), AXES, ()])
def test_a_line_has_all_ranks_that_differ_in_its_axes_alone(axes):
    for mesh in MESHES:
        lines = list(mesh.lines(*axes))
        assert sorted(rank for line in lines for rank in line) == list(range(mesh.size))
        for line in lines:
            others = {tuple(mesh.coordinates(rank)[axis] for axis in AXES if axis not in axes)
                      for rank in line}
            assert len(others) == 1 and list(line) == sorted(line)


@pytest.fixture(scope="module")
def fake_ranks():
    """Makes a rank of a program of any size that sends nothing, for torch's own mesh."""
    def be(rank, size):
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        torch.distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=size)
    yield be
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_groups_are_those_of_torchs_device_mesh(mesh, fake_ranks):
    names = AXES[::-1]
    for rank in {0, mesh.size // 2, mesh.size - 1}:
        fake_ranks(rank, mesh.size)
        theirs = init_device_mesh("cpu", tuple(getattr(mesh, name) for name in names),
                                  mesh_dim_names=names)
        assert dict(zip(names, theirs.get_coordinate(), strict=True)) == mesh.coordinates(rank)
        axes = mesh.on(World(rank=rank, size=mesh.size, process_group=None))
        for name in AXES:
            assert list(getattr(axes, name).ranks) == theirs[name].mesh.tolist()
            assert getattr(axes, name).rank == theirs.get_local_rank(name)
        data = theirs["replicate", "dp"]._flatten()
        assert list(axes.data.ranks) == data.mesh.tolist()
        shards = theirs["dp", "cp"]._flatten()
        assert list(axes.shards.ranks) == shards.mesh.tolist()
        everyone = theirs["replicate", "dp", "cp"]._flatten()
        assert list(axes.gradients.ranks) == everyone.mesh.tolist()


def sums(world, text):
    axes = Mesh.parse(text).on(world)
    own = torch.tensor([2.0 ** world.rank])
    return {name: int(getattr(axes, name).all_reduce(own.clone()).item()) for name in GROUPS}


@pytest.mark.parametrize("text", ("tp=2,dp=2", "replicate=2,dp=2", "tp=4", "replicate=2,tp=2"))
def test_what_a_group_adds_up_comes_from_its_ranks(text, ranks):
    mesh = Mesh.parse(text)
    for rank, found in enumerate(ranks.run(sums, text)):
        for name, axes in GROUPS.items():
            (line,) = [line for line in mesh.lines(*axes) if rank in line]
            assert found[name] == sum(2**other for other in line)


def two_meshes(world):
    """Two roles over the same ranks, begun in another order on each rank, which would mix them up
    if they shared a connection."""
    first, second = Mesh(tp=4).on(world), Mesh(dp=4).on(world)
    groups = [first.tp, second.dp, second.data]
    tensors = [torch.full((3,), 10.0**number) for number in range(3)]
    order = [0, 1, 2] if world.rank % 2 else [2, 1, 0]
    pending = [groups[number].start_all_reduce(tensors[number]) for number in order]
    for each in pending:
        each.wait()
    names = [group.name for group in groups]
    return len({id(group.process_group) for group in (*groups, world)}), names, [
        tensor.tolist() for tensor in tensors]


def test_meshes_over_the_same_ranks_with_other_roles_do_not_share_groups(ranks):
    right = (4, ["tp", "dp", "data"], [[4.0] * 3, [40.0] * 3, [400.0] * 3])
    assert ranks.run(two_meshes) == [right] * 4


def logged(world):
    world.log.clear()
    axes = Mesh(tp=2, dp=2).on(world)
    axes.tp.all_reduce(torch.ones(2))
    axes.replicate.all_reduce(torch.ones(2))
    axes.data.all_gather(torch.ones(2))
    return [(call.group, call.size) for call in world.log.calls]


def test_the_log_names_the_group_and_a_group_of_one_sends_nothing(ranks):
    assert ranks.run(logged) == [[("tp", 2), ("data", 2)]] * 4


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_a_mesh_is_read_back_from_its_text(mesh):
    assert Mesh.parse(str(mesh)) == mesh


def test_spaces_and_any_order_are_read():
    assert Mesh.parse(" dp=8 , tp=2") == Mesh.parse("tp=2,dp=8") == Mesh(tp=2, dp=8)


@pytest.mark.parametrize("text", ("", "dp", "dp=", "dp=x", "xp=2", "dp=2,dp=2", "dp=2;tp=2",
                                  "dp=-1", "dp=2.0", "dp=٣", "dp = 2"))
def test_another_text_is_refused_with_an_example(text):
    with pytest.raises(ValueError) as caught:
        Mesh.parse(text)
    assert "such as dp=8,tp=2" in str(caught.value) and repr(text) in str(caught.value)


@pytest.mark.parametrize("size", (0, -2, True, 2.0, "2", None))
def test_a_size_is_a_whole_number_above_zero(size):
    with pytest.raises(ValueError, match=r"Mesh.dp must be a whole number of at least 1; got"):
        Mesh(dp=size)


def test_a_size_of_zero_in_a_text_is_refused():
    with pytest.raises(ValueError, match="Mesh.tp must be a whole number of at least 1; got 0"):
        Mesh.parse("tp=0")


@pytest.mark.parametrize(("mesh", "size", "cure"), [
    (Mesh(dp=2, tp=4), 4, "Set tp=2 or dp=1, or start 8 ranks"),
    (Mesh(dp=2, tp=2), 8, "Set tp=4 or dp=4, or start 4 ranks"),
    (Mesh(tp=2, cp=2, pp=2, dp=2), 8, "Set tp=1 or cp=1 or pp=1 or dp=1, or start 16 ranks"),
    (Mesh(tp=3), 4, "Set tp=4, or start 3 ranks"),
    (Mesh(tp=3, dp=2), 4, "Set tp=2, or start 6 ranks"),
    (Mesh(tp=3, dp=3), 4, "Choose sizes that divide it, or start 9 ranks"),
])
def test_a_product_that_is_not_the_number_of_ranks_names_the_sizes_that_fit(mesh, size, cure):
    world = World(rank=0, size=size, process_group=None)
    with pytest.raises(ValueError) as caught:
        mesh.on(world)
    assert f"= {mesh.size} for {size} ranks. {cure}" in str(caught.value)


def test_a_rank_outside_the_mesh_and_an_unknown_axis_are_refused():
    with pytest.raises(ValueError, match="the ranks of dp=2 are 0 to 1; got 2"):
        Mesh(dp=2).coordinates(2)
    with pytest.raises(ValueError, match=r"got \['ep'\]"):
        list(Mesh(dp=2).lines("ep"))
    with pytest.raises(ValueError, match="experts are ep, expert_shards, expert_gradients"):
        list(Mesh(dp=2).expert_lines("dp"))


def test_one_rank_has_all_groups_without_any_others():
    axes = Mesh().on(alone())
    assert {getattr(axes, name).size for name in GROUPS} == {1} and str(Mesh()) == "dp=1"


def test_experts_are_divided_by_neighbors_along_cp_and_dp():
    mesh = Mesh(tp=2, cp=2, pp=2, dp=2, ep=2)
    assert list(mesh.expert_lines("ep"))[:2] == [(0, 2), (8, 10)]  # same tp and pp
    assert list(mesh.expert_lines("expert_shards"))[:2] == [(0, 8), (2, 10)]
    for mesh in MESHES:
        n_shards = mesh.cp * mesh.dp // mesh.ep
        for group, n in (("ep", mesh.ep), ("expert_shards", n_shards),
                         ("expert_gradients", n_shards * mesh.replicate)):
            lines = list(mesh.expert_lines(group))
            assert sorted(rank for line in lines for rank in line) == list(range(mesh.size))
            assert {len(line) for line in lines} == {n}


def test_the_ends_of_a_pipeline_are_a_group_and_its_middle_ranks_are_alone():
    assert list(Mesh(pp=4).end_lines()) == [(0, 3), (1,), (2,)]
    assert list(Mesh(pp=2, tp=2).end_lines()) == [(0, 2), (1, 3)]
    assert list(Mesh(dp=2).end_lines()) == [(0,), (1,)]


def test_experts_need_ranks_that_hold_the_same_layers():
    with pytest.raises(ValueError, match=r"got ep=4 for cp=1 x dp=2. Choose ep=2, or a larger dp"):
        Mesh(pp=2, dp=2, ep=4)


def sums_of_derived_groups(world, mesh):
    axes = mesh.on(world)
    own = torch.tensor([2.0 ** world.rank])
    return [int(getattr(axes, name).all_reduce(own.clone()).item())
            for name in ("ep", "expert_shards", "expert_gradients", "ends", "shards", "gradients")]


def test_derived_groups_add_up_their_own_ranks(ranks):
    assert ranks.run(sums_of_derived_groups, Mesh(cp=2, dp=2, ep=2)) == [
        [3, 5, 5, 1, 15, 15], [3, 10, 10, 2, 15, 15], [12, 5, 5, 4, 15, 15],
        [12, 10, 10, 8, 15, 15]]
    assert ranks.run(sums_of_derived_groups, Mesh(dp=2, replicate=2, ep=2)) == [
        [3, 1, 5, 1, 3, 15], [3, 2, 10, 2, 3, 15], [12, 4, 5, 4, 12, 15], [12, 8, 10, 8, 12, 15]]


def test_without_expert_parallelism_experts_have_the_groups_of_other_parameters():
    axes = Mesh().on(alone())
    assert axes.expert_shards is axes.shards and axes.expert_gradients is axes.gradients


def added_up_by_neighbors(world, axes_of):
    """For each n, the ranks of a group of neighbors, and the sum of their numbers."""
    tp = axes_of.on(world).tp
    groups = [neighbors(tp, n, name="n") for n in (1, 2, 4) if n <= tp.size]
    return [(group.ranks, group.all_reduce(torch.tensor(float(world.rank))).item())
            for group in groups]


def test_neighbors_form_groups_within_a_group(ranks):
    assert ranks.run(added_up_by_neighbors, Mesh(tp=4)) == [
        [((rank,), rank), (pair, sum(pair)), ((0, 1, 2, 3), 6)]
        for rank, pair in enumerate([(0, 1), (0, 1), (2, 3), (2, 3)])]
    assert ranks.run(added_up_by_neighbors, Mesh(tp=2, dp=2))[3] == [((3,), 3), ((2, 3), 5)]
