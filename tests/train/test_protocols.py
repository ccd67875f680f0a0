"""Which classes fit the protocols of a run; `isinstance` asks for the methods by name."""

import pytest
import torch
from tiny_runs import DATA, make

from llama_from_scratch.kernels import FusedAdamW
from llama_from_scratch.train.aligned import Aligned
from llama_from_scratch.train.loop import train
from llama_from_scratch.train.loss import sum_of_nats
from llama_from_scratch.train.optimizer import AdamW, decay_groups
from llama_from_scratch.train.parts import TrainParts
from llama_from_scratch.train.protocols import Data, Loss, Optimizer
from llama_from_scratch.train.records import TrainConfig


class Windows:
    """Not derived from anything: it has the method, and that is enough."""

    def batch(self, step, *, batch_size, seq_len, seed):
        return DATA.batch(step, batch_size=batch_size, seq_len=seq_len, seed=seed)


@pytest.mark.parametrize("data", [DATA, Aligned([[1, 2, 3], [4, 5]]), Windows()], ids=type)
def test_what_makes_batches_is_data(data):
    assert isinstance(data, Data)


@pytest.mark.parametrize("other", ["a text", ["texts"], torch.zeros(3), None, AdamW], ids=repr)
def test_what_makes_no_batches_is_no_data(other):
    assert not isinstance(other, Data)


def test_a_class_of_ones_own_trains_as_the_data_that_it_passes_on():
    config = TrainConfig(n_steps=2, batch_size=2, seq_len=24, n_warmup=1)
    losses = [train(make(), data, config=config).losses for data in (DATA, Windows())]
    assert losses[0] == losses[1]


def test_both_adamws_are_optimizers():
    groups = decay_groups(make(), weight_decay=0.1)
    assert isinstance(AdamW(groups), Optimizer)
    assert isinstance(FusedAdamW(groups, emulate=True), Optimizer)
    assert not isinstance(DATA, Optimizer)


def test_the_default_parts_fit():
    parts = TrainParts()
    assert isinstance(parts.loss, Loss) and isinstance(sum_of_nats, Loss)
    assert not isinstance("a loss", Loss)
    groups = decay_groups(make(), weight_decay=0.1)
    assert isinstance(parts.make_optimizer(groups, TrainConfig()), Optimizer)
