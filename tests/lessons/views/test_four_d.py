import dataclasses

import matplotlib.pyplot as plt
import pytest
import torch
from pictures import faults, styled

from llama_from_scratch import family
from llama_from_scratch.lessons.views import four_d
from llama_from_scratch.model.unwritten import unwritten
from llama_from_scratch.parallel import costs
from llama_from_scratch.parallel.fake import pretended
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.pipeline.plan import PipelinePlan
from llama_from_scratch.parallel.pipeline.simulate import Times, simulate
from llama_from_scratch.parallel.shard import shard


@pytest.fixture(autouse=True)
def style(monkeypatch):
    styled(monkeypatch)
    yield
    plt.close("all")


def config_of(*, is_tied):
    tiny = family.tiny("llama-3.2" if is_tied else "llama-3")
    return dataclasses.replace(tiny, layers=tiny.layers[:1] * 7)


def held_by(config, mesh, rank, plan):
    """What `shard` leaves on a rank: all of its parameters, and those that its optimizer changes.
    """
    nothing = ((name, torch.empty(p.shape, device="meta"))
               for name, p in unwritten(config).named_parameters())
    with pretended(size=mesh.size, rank=rank) as world:
        sharded = shard(unwritten(config), mesh.on(world), stage=2,
                        is_sequence_parallel=mesh.tp > 1,
                        pipeline=plan, param_dtype=torch.bfloat16, weights=nothing)
        return (sum(p.numel() for p in sharded.model.parameters()),
                sum(p.numel() for p in sharded.params.values()))


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize(("mesh", "n_chunks"), [
    (Mesh(tp=2, cp=2, pp=4, dp=2), 2), (Mesh(tp=4, pp=2, dp=4), 1), (Mesh(dp=2, pp=3), 1)], ids=str)
def test_the_parameters_of_each_stage_are_those_that_shard_leaves(mesh, n_chunks, is_tied):
    config = config_of(is_tied=is_tied)
    plan = (PipelinePlan() if n_chunks == 1
            else PipelinePlan(schedule="interleaved", n_chunks=n_chunks))
    for pp_rank in range(mesh.pp):
        units = four_d.unit_sizes_of(config, mesh, n_chunks=n_chunks, pp_rank=pp_rank)
        n_held, n_own = held_by(config, mesh, mesh.tp * mesh.cp * pp_rank, plan)
        assert sum(units.values()) == n_held
        assert abs(n_own - n_held / (mesh.cp * mesh.dp)) <= len(units)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_bytes_are_those_of_the_library_s_costs(stage):
    config, mesh = config_of(is_tied=False), Mesh(tp=2, dp=4)
    units = four_d.unit_sizes_of(config, mesh, n_chunks=1, pp_rank=0)
    plan = costs.Plan(config=config, mesh=mesh, stage=stage, weight_dtype=torch.float32,
                      compute_dtype=torch.bfloat16)
    known = costs.memory_bytes(plan)
    found = four_d.states(units, n_shards=4, stage=stage, is_piped=False)
    assert found["gradients"] == known["gradients"]
    assert found["averages of the optimizer"] == known["averages"]
    assert found["weights"] + found["master weights"] == known["weights"]
    assert found["there for a moment"] == known["gathered"]


def test_copies_take_18_bytes_per_parameter():
    assert sum(four_d.states({"root": 10, "layers.0": 20}, n_shards=4, stage=0,
                             is_piped=True).values()) == 18 * 30


@pytest.mark.parametrize(("n_ranks", "n_micro", "n_chunks"), [(4, 8, 1), (4, 8, 2), (2, 6, 3)])
def test_the_bubble_is_what_the_simulation_finds(n_ranks, n_micro, n_chunks):
    plan = PipelinePlan(schedule="interleaved" if n_chunks > 1 else "1f1b", n_chunks=n_chunks)
    run = simulate(plan.on(n_ranks, n_micro_batches=n_micro), Times())
    assert run.bubble == four_d.bubble(n_ranks, n_micro, n_chunks)


def test_llama_3_s_mesh_is_shown_and_told():
    figure = four_d.four_d_frame(**four_d.START)
    assert faults(figure) == []
    label = figure.get_label()
    assert "on 16,384 GPUs, 16,777,216 tokens in a step" in label
    assert "3,052,109,824, 3,187,933,184, 3,052,126,208" in label and "11.7 % of the time" in label
    left, right = figure.axes
    ends = {}
    for bar in left.patches:
        row = round(bar.get_y() + bar.get_height() / 2)
        ends[row] = max(ends.get(row, 0), bar.get_x() + bar.get_width())
    assert [round(ends[row], 1) for row in range(3)] == [18.7, 19.5, 18.7]
    assert [bar.get_width() for bar in right.patches] == pytest.approx([93.75, 11.71875])


@pytest.mark.parametrize("change", [
    dict(stage=0), dict(stage=3), dict(tp=1), dict(cp=16, dp=8, seq_len=131_072),
    dict(pp=1, n_chunks=8), dict(pp=2), dict(model="llama-3.1-8b", pp=4, tp=2)], ids=str)
def test_no_choice_has_words_that_are_cut_or_covered(change):
    assert faults(four_d.four_d_frame(**four_d.START | change)) == []


@pytest.mark.parametrize(("change", "told"), [
    (dict(model="llama-3.1-8b"), "each piece of a pipeline between the first and the last needs a "
                                 "layer; got 32 layers for 128 pieces"),
    (dict(n_micro=8), "micro-batches"), (dict(model="llama-3.1-8b", tp=16, pp=1), None)])
def test_a_mesh_that_does_not_fit_is_refused_in_the_words_of_the_library(change, told):
    view = four_d.four_d_costs()
    before = view.picture.value
    for name, value in change.items():
        view.controls[name].value = value
    if told is None:
        assert view.problem.value == "" and view.picture.value != before
    else:
        assert told in view.problem.value and view.picture.value == before
