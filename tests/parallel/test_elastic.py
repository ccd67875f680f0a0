"""A replica fails and comes back; every step is the one of a process with the rows that are left.
"""

import on_ranks
import parity
import pytest
import torch
from paper_mesh import on_paper
from tiny_runs import CONFIG, DATA

from llama_from_scratch.parallel.elastic import ElasticReplicas
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.shard import shard
from llama_from_scratch.train.data import IGNORE, Batch
from llama_from_scratch.train.loop import gradients
from llama_from_scratch.train.optimizer import Group
from llama_from_scratch.train.parts import adamw

AWAY = {1, 2}
"""The steps without replica 1."""
N_STEPS = 5
LR = 1e-2


def batch(step):
    """Eight rows with very different numbers of targets."""
    made = DATA.batch(step, batch_size=8, seq_len=12, seed=0)
    targets = made.targets.clone()
    for row in range(8):
        targets[row, : row + step] = IGNORE
    return Batch(ids=made.ids, targets=targets, documents=made.documents, positions=made.positions)


def optimizer_of(params):
    return adamw([Group(params=params, weight_decay=0.1)], CONFIG)


def train_elastic(world, stage):
    """Losses of each step on this rank, None while it is away, and its weights at the end."""
    sharded = shard(parity.model_of(parity.config()), Mesh(replicate=2, dp=2).on(world),
                    stage=stage)
    replicas, optimizer, losses = ElasticReplicas(sharded), optimizer_of(sharded.params), []
    for step in range(N_STEPS):
        if step in AWAY and 1 in replicas.present:
            replicas.lose(1)
        if step not in AWAY and 1 not in replicas.present:
            if not replicas.is_present:  # it was started again, and has nothing
                for x in (*sharded.weights.values(), *optimizer.state_dict().values()):
                    x.data.fill_(-1)
            replicas.rejoin(1, optimizer)
        if not replicas.is_present:
            losses.append(None)
            continue
        whole = batch(step)
        with sharded.micro_batch(is_last=True):
            loss = sharded.loss(sharded.model, replicas.rows_of(whole), is_bf16=False)
            loss = loss / replicas.n_targets_in(whole)
            loss.backward()
        sharded.finish_gradients()
        losses.append(float(replicas.total(loss.detach())))
        optimizer.step(lr=LR)
        optimizer.zero_grad()
        sharded.after_step()
    return losses, {name: p.detach().clone() for name, p in sharded.whole(sharded.weights)}


def train_alone():
    """The same in one process, which leaves out the rows of the replica that is away."""
    model, losses = parity.model_of(parity.config()), []
    optimizer = optimizer_of(dict(model.named_parameters()))
    for step in range(N_STEPS):
        whole = batch(step)
        losses.append(gradients(model, whole.split(4)[0] if step in AWAY else whole))
        optimizer.step(lr=LR)
        optimizer.zero_grad()
    return losses, dict(model.named_parameters())


@pytest.fixture(scope="module")
def alone():
    return train_alone()


@pytest.fixture(scope="module")
def four():
    with on_ranks.ranks(4) as ranks:
        yield ranks


@pytest.mark.parametrize("stage", [1, 3])
def test_the_rest_goes_on_with_the_rows_that_are_left_and_all_are_equal_later(four, alone, stage):
    found = four.run(train_elastic, stage)
    losses, weights = alone
    for rank, (seen, ours) in enumerate(found):
        known = [None if rank >= 2 and step in AWAY else loss for step, loss in enumerate(losses)]
        assert [loss is None for loss in seen] == [loss is None for loss in known]
        assert [loss for loss in seen if loss is not None] == pytest.approx(
            [loss for loss in known if loss is not None], rel=0, abs=1e-12)
        assert all((ours[name] - weights[name]).abs().max() < 1e-12 for name in weights)
        assert all(torch.equal(ours[name], found[0][1][name]) for name in ours)


def test_what_cannot_be_is_refused():
    sharded = shard(parity.model_of(parity.config()), on_paper(Mesh()), stage=1)
    with pytest.raises(ValueError, match="2 to 4 replicas; got the mesh dp=1"):
        ElasticReplicas(sharded)


def refused(world):
    replicas = ElasticReplicas(shard(parity.model_of(parity.config()),
                                     Mesh(replicate=2, dp=2).on(world), stage=2))
    optimizer, words = optimizer_of(replicas._sharded.params), []
    for call in (lambda: replicas.rejoin(1, optimizer), lambda: replicas.lose(2),
                 lambda: (replicas.lose(0), replicas.lose(1))):
        try:
            call()
        except ValueError as error:
            words.append(str(error))
    return words


def test_a_replica_is_lost_once_and_never_the_last_one(four):
    for words in four.run(refused):
        assert "got 1, and (0, 1) are there" in words[0]
        assert words[1].endswith("got 2 of (0, 1)") and words[2].endswith("got 1 of (1,)")
