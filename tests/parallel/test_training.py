"""`train` on a mesh is the run of one process: losses, validation, files, resuming, interrupts."""

import dataclasses

import parallel_runs
import pytest
import torch
from paper_mesh import on_paper
from tiny_runs import CONFIG, DATA, make

from llama_from_scratch.checkpoint import native as native_format
from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.comm_log import CommLog
from llama_from_scratch.parallel.launch import RankFailed, Ranks
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.pipeline.plan import PipelinePlan
from llama_from_scratch.parallel.shard import shard
from llama_from_scratch.parallel.training import parts_on, rows_of
from llama_from_scratch.train import resume
from llama_from_scratch.train.loop import train
from llama_from_scratch.train.parts import TrainParts

TIMEOUT_S = 300.0
MESHES = [("own", dict(dp=2), dict(stage=0)), ("own", dict(dp=2), dict(stage=3)),
          ("own", dict(tp=2), dict(is_sequence_parallel=True)),
          ("native", dict(dp=2), dict(stage=3)), ("native", dict(dp=2), dict(stage=0)),
          ("native", dict(tp=2), dict(is_sequence_parallel=True))]


@pytest.fixture(scope="module")
def two():
    with Ranks(2, timeout_s=TIMEOUT_S) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def alone():
    model = make()
    history = train(model, DATA, config=CONFIG, validation=DATA)
    return history, dict(model.named_parameters())


def assert_same_run(found, alone):
    (losses, lengths, validations, weights, is_complete, n_tokens), (history, known) = found, alone
    assert is_complete and losses == pytest.approx(history.losses, abs=2e-5)
    assert lengths == pytest.approx([step.grad_norm for step in history.steps], rel=1e-3)
    assert n_tokens == history.n_tokens
    if validations:
        assert validations == pytest.approx([e.loss for _, e in history.validations], abs=2e-5)
    for name, weight in weights.items():
        assert torch.allclose(weight, known[name], atol=2e-4), name


@pytest.mark.parametrize(("engine", "sizes", "how"), MESHES, ids=str)
def test_a_run_on_a_mesh_is_the_run_of_one_process(two, alone, engine, sizes, how):
    first, second = two.run(parallel_runs.run, sizes, engine=engine, validates=True, **how)
    assert_same_run(first, alone)
    assert first[:3] == second[:3]


def test_a_run_goes_on_with_another_mesh_and_engine_and_in_one_process(tmp_path, two, alone):
    folder = tmp_path / "run"
    for n_steps, engine, sizes, how in (
            (2, "own", dict(dp=2), dict(stage=3)),
            (4, "native", dict(dp=2), dict(stage=2)),
            (6, "own", dict(tp=2), dict(is_sequence_parallel=True))):
        found = two.run(parallel_runs.run, sizes, engine=engine, folder=folder, stops_after=n_steps,
                        is_resumed=n_steps > 2, seed=n_steps - 2, **how)
        assert all(not each[4] and len(each[0]) == n_steps for each in found)
        assert found[0][0] == pytest.approx(alone[0].losses[:n_steps], abs=2e-5)
    model = make(seed=9)
    history = train(model, DATA, config=CONFIG, folder=folder, is_resumed=True)
    assert history.losses == pytest.approx(alone[0].losses, abs=2e-5)
    assert all(torch.allclose(p, alone[1][name], atol=2e-4)
               for name, p in model.named_parameters())


def test_files_are_those_of_one_process(tmp_path, two):
    here, there = tmp_path / "here", tmp_path / "there"
    train(make(), DATA, config=CONFIG, folder=here)
    two.run(parallel_runs.run, dict(dp=2), stage=1, folder=there)
    assert sorted(f.name for f in here.iterdir()) == sorted(f.name for f in there.iterdir())
    saved, other = resume.read(here), resume.read(there)
    assert saved.settings == other.settings and len(saved.steps) == len(other.steps)
    for (name, a), (_, b) in zip(native_format.open_checkpoint(here).tensors(None),
                                 native_format.open_checkpoint(there).tensors(None), strict=True):
        assert torch.allclose(a, b, atol=2e-4), name


def test_frozen_weights_stay_and_are_saved(tmp_path, two):
    frozen = ("tok_embeddings.weight", "layers.0.attention.wq.weight")
    before = dict(make().named_parameters())
    for sizes, how in ((dict(dp=2), dict(stage=3)), (dict(dp=2), dict(stage=0)),
                       (dict(tp=2), {})):
        found = two.run(parallel_runs.run, sizes, frozen=frozen, **how)[0][3]
        assert found.keys() == before.keys()
        assert all(torch.equal(found[name], before[name]) == (name in frozen) for name in found)


def test_accumulating_micro_batches_changes_nothing(two, alone):
    for sizes, how in ((dict(dp=2), dict(stage=2)), (dict(dp=2), dict(stage=0))):
        found = two.run(parallel_runs.run, sizes, changes=dict(micro_batch_size=1), **how)
        assert_same_run(found[0], alone)


def test_a_pipeline_trains_validates_saves_and_goes_on_elsewhere(tmp_path, two, alone):
    """The rows of micro-batches go through two ranks that have one layer each."""
    folder, rows = tmp_path / "run", dict(micro_batch_size=1)
    found = two.run(parallel_runs.run, dict(pp=2), changes=rows, validates=True, folder=folder)
    for each in found:
        assert_same_run((*each[:3], found[0][3], *each[4:]), alone)
    assert found[0][:3] == found[1][:3]
    saved = dict(native_format.open_checkpoint(folder).tensors(None))
    assert all(torch.equal(saved[name], weight) for name, weight in found[0][3].items())
    zero_bubble = PipelinePlan(schedule="zero_bubble", recomputes=True)
    other = tmp_path / "other"
    two.run(parallel_runs.run, dict(pp=2), changes=rows, folder=other, stops_after=3,
            pipeline=zero_bubble)
    again = two.run(parallel_runs.run, dict(pp=2), changes=rows, folder=other, is_resumed=True,
                    seed=5, pipeline=zero_bubble)
    assert again[0][0] == found[0][0] and again[0][1] == found[0][1]  # to the bit


def test_a_hundred_clipped_steps_in_fp32_stay_with_one_process(two):
    """A run lost its parity at step 15, because the ranks of a pipeline added up the squares of the
    gradient's length in another order (torchtitan#4312). Here it is in float64."""
    changes = dict(micro_batch_size=1, n_steps=100, max_grad_norm=0.05, peak_lr=3e-3,
                   checkpoint_every=100, validate_every=100)
    history = train(make(), DATA, config=dataclasses.replace(CONFIG, **changes))
    found = two.run(parallel_runs.run, dict(pp=2), changes=changes)
    assert found[0][:2] == found[1][:2]
    assert min(found[0][1]) > 0.05  # every step is clipped
    assert found[0][0] == pytest.approx(history.losses, abs=1e-4)
    assert found[0][1] == pytest.approx([step.grad_norm for step in history.steps], rel=1e-2)


@pytest.mark.parametrize("n_ranks", (1, 2, 4))
def test_an_epoch_that_goes_on_with_other_ranks_has_each_sample_as_often_as_one_without(n_ranks):
    """Stopped at an odd step on two ranks, and resumed on 1, 2 and 4."""
    def rows(step, n):
        batch = DATA.batch(step, batch_size=4, seq_len=24, seed=0)
        groups = [RankGroup(range(n), own=rank, name="data", log=CommLog(), process_group=None,
                            device=torch.device("cpu")) for rank in range(n)]
        return [tuple(row.tolist()) for group in groups for row in rows_of(batch, group).ids]

    n_steps = 2 * DATA.n_tokens // (4 * 24)
    known = sorted(row for step in range(n_steps) for row in rows(step, 1))
    found = sorted(row for step in range(n_steps) for row in rows(step, 2 if step < 3 else n_ranks))
    assert found == known and len(known) == 4 * n_steps > 20


def test_a_pipeline_without_enough_micro_batches_says_how_to_divide_the_batch():
    with Ranks(2, timeout_s=TIMEOUT_S) as ranks, pytest.raises(
            RankFailed, match="a pipeline of 2 ranks needs at least 2 micro-batches"):
        ranks.run(parallel_runs.run, dict(pp=2))


def test_an_occupied_folder_is_refused_before_the_first_step(tmp_path, two):
    folder = tmp_path / "run"
    train(make(), DATA, config=CONFIG, folder=folder)
    with Ranks(2, timeout_s=TIMEOUT_S) as ranks, pytest.raises(
            RankFailed, match="already holds a checkpoint"):
        ranks.run(parallel_runs.run, dict(dp=2), folder=folder)
    assert len(resume.read(folder).steps) == CONFIG.n_steps


def test_rows_that_the_ranks_cannot_share_are_refused_with_what_fits():
    group = on_paper(Mesh(dp=3)).data
    batch = DATA.batch(0, batch_size=4, seq_len=24, seed=0)
    with pytest.raises(ValueError, match="got 4 rows for 3 ranks. Choose a batch of 3 or 6 rows"):
        rows_of(batch, group)
    assert rows_of(DATA.batch(0, batch_size=6, seq_len=24, seed=0), group).ids.shape == (2, 24)


def test_the_reader_s_parts_stay_where_the_mesh_needs_none():
    seen = []
    parts = dataclasses.replace(parts_on(shard(make(), on_paper(Mesh()))).__class__(),
                                schedule=lambda step, **_: seen.append(step) or 1e-3)
    model = make()
    history = train(model, DATA, config=CONFIG,
                    parts=parts_on(shard(model, on_paper(Mesh())), parts))
    assert seen == list(range(CONFIG.n_steps)) and {step.lr for step in history.steps} == {1e-3}


@pytest.mark.parametrize(("engine", "sizes", "how"), MESHES, ids=str)
def test_the_reader_s_loss_is_used(two, engine, sizes, how):
    parts = TrainParts(loss=parallel_runs.doubled)
    history = train(make(), DATA, config=CONFIG, parts=parts)
    found = two.run(parallel_runs.run, sizes, engine=engine, parts=parts, **how)[0]
    assert found[0] == pytest.approx(history.losses, abs=4e-5) and found[0][0] > 11
    assert found[1] == pytest.approx([step.grad_norm for step in history.steps], rel=1e-3)


def test_parts_that_need_all_ranks_are_refused_with_what_to_do():
    sharded = shard(make(), on_paper(Mesh()))
    with pytest.raises(ValueError, match="got another reduce and save. Change what parts_on "
                                         r"returns.*replace\(parts_on\(sharded\), reduce="):
        parts_on(sharded, TrainParts(reduce=lambda model, loss: loss, save=lambda *_, **__: None))
