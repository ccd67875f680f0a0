"""`flat`: one buffer, equal parts, and the parameters as views of it."""

import pytest
import torch
from torch import nn

from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.comm_log import CommLog
from llama_from_scratch.parallel.flat import Flat
from llama_from_scratch.parallel.world import alone


def group_of(size, *, rank):
    """A group that sends nothing: for what a rank does alone."""
    return RankGroup(range(size), own=rank, name="dp", log=CommLog(), process_group=None,
                     device=torch.device("cpu"))


def named(*sizes):
    return {f"p{i}": nn.Parameter(torch.zeros(size)) for i, size in enumerate(sizes)}


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4, 7, 20])
def test_the_spans_of_all_ranks_cover_each_parameter_once(n_ranks):
    sizes = (1, 11, 2, 1, 3)
    found = {f"p{i}": [] for i in range(len(sizes))}
    for rank in range(n_ranks):
        flat = Flat("unit", named(*sizes), group_of(n_ranks, rank=rank))
        assert flat.n_part == -(-sum(sizes) // n_ranks)
        for name, (first, n) in flat.spans.items():
            found[name] += range(first, first + n)
            assert flat.pieces[name].shape == (n,)
    assert found == {f"p{i}": list(range(size)) for i, size in enumerate(sizes)}


def test_a_rank_may_own_nothing_but_padding():
    flat = Flat("unit", named(1, 1), group_of(4, rank=3))
    assert (flat.n_part, flat.spans, flat.pieces) == (1, {}, {})


def test_gathering_gives_values_and_freeing_takes_memory_away():
    params = {"w": nn.Parameter(torch.arange(6.0).view(2, 3)), "b": nn.Parameter(torch.ones(2))}
    weights = {name: p.detach().clone() for name, p in params.items()}
    flat = Flat("unit", params, alone())
    for name, weight in weights.items():
        flat.fill(name, weight)
    assert flat._whole.untyped_storage().nbytes() == 0
    assert all(p.isnan().all() and p.shape == weights[name].shape for name, p in params.items())
    flat.gather()
    assert all(torch.equal(p, weights[name]) for name, p in params.items())
    assert flat._whole.untyped_storage().nbytes() == 8 * 4


def test_backward_sees_the_weights_that_were_gathered_again():
    w = nn.Parameter(torch.full((3, 3), 2.0))
    flat = Flat("unit", {"w": w}, alone())
    flat.fill("w", torch.full((3, 3), 2.0))
    flat.gather()
    x = torch.ones(1, 3, requires_grad=True)
    y = nn.functional.linear(torch.tanh(nn.functional.linear(x, w)), w)
    flat.free()
    flat.gather()
    y.sum().backward()
    again = torch.ones(1, 3, requires_grad=True)
    plain = torch.full((3, 3), 2.0)
    nn.functional.linear(torch.tanh(nn.functional.linear(again, plain)), plain).sum().backward()
    assert torch.equal(x.grad, again.grad)


def test_a_kept_buffer_and_its_pieces_are_the_same_memory():
    params = named(3, 3)
    flat = Flat("unit", params, group_of(2, rank=1), is_kept=True)
    flat.fill("p1", torch.arange(3.0))
    assert torch.equal(params["p1"], flat.pieces["p1"])
    flat.pieces["p1"].data += 1
    assert torch.equal(params["p1"], torch.arange(3.0) + 1)


def test_gradients_are_added_in_fp32():
    params = {"w": nn.Parameter(torch.ones(2, dtype=torch.bfloat16))}
    flat = Flat("unit", params, alone(), param_dtype=torch.bfloat16)
    for number in (256.0, 1.0):
        flat.add_grad("w", torch.full((2,), number, dtype=torch.bfloat16))
        flat.start_reduce()
        flat.wait_reduce()
    flat.hand_out()
    assert flat.pieces["w"].grad.tolist() == [257.0, 257.0]
    assert not flat.has_grad


def test_what_nobody_used_has_a_gradient_of_zero():
    flat = Flat("unit", named(3), alone())
    flat.hand_out()
    assert torch.equal(flat.pieces["p0"].grad, torch.zeros(3))


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"p0 has the shape \(3,\); got a weight of \(4,\)"):
        Flat("unit", named(3), alone()).fill("p0", torch.zeros(4))


def test_a_parameter_on_the_meta_device_stays_the_same_object():
    layer = nn.Linear(2, 3, bias=False, device="meta")
    weight = layer.weight
    flat = Flat("unit", {"weight": layer.weight}, alone())
    flat.fill("weight", torch.ones(3, 2))
    flat.gather()
    assert layer.weight is weight and torch.equal(layer(torch.ones(1, 2)), torch.full((1, 3), 2.0))
