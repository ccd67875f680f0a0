"""What a run asks of its parts is what the parts of the library have."""

import pytest
import torch
from tiny_runs import DATA, make
from torch import nn

from llama_from_scratch.kernels import FusedAdamW
from llama_from_scratch.train.aligned import Aligned
from llama_from_scratch.train.loop import train
from llama_from_scratch.train.loss import sum_of_nats
from llama_from_scratch.train.optimizer import AdamW, Group
from llama_from_scratch.train.parts import TrainParts
from llama_from_scratch.train.protocols import Data, Loss, Optimizer
from llama_from_scratch.train.records import TrainConfig

GROUPS = [Group(params={"w": nn.Parameter(torch.ones(3))}, weight_decay=0.1)]


class Windows:
    """Not derived from anything: it has the method, and that is enough."""

    def batch(self, step, *, batch_size, seq_len, seed):
        return DATA.batch(step, batch_size=batch_size, seq_len=seq_len, seed=seed)


def test_data_and_both_optimizers_and_the_loss_of_the_library_fit():
    for data in (DATA, Aligned([[1, 2, 3], [4, 5]]), Windows()):
        assert isinstance(data, Data)
    assert isinstance(AdamW(GROUPS), Optimizer)
    assert isinstance(FusedAdamW(GROUPS, emulate=True), Optimizer)
    assert isinstance(sum_of_nats, Loss)


def test_the_default_parts_of_a_step_fit():
    parts = TrainParts()
    assert isinstance(parts.loss, Loss)
    assert isinstance(parts.make_optimizer(GROUPS, TrainConfig()), Optimizer)


@pytest.mark.parametrize("other", ["a text", ["a text"], torch.ones(3), None, AdamW(GROUPS)],
                         ids=lambda other: type(other).__name__)
def test_what_makes_no_batches_is_no_data(other):
    assert not isinstance(other, Data)


def test_what_lacks_a_method_does_not_fit():
    assert not isinstance(torch.optim.AdamW(nn.Linear(2, 2).parameters()), Data)
    assert not isinstance(nn.Linear(2, 2).weight, Optimizer)
    assert not isinstance(DATA, Optimizer)
    assert not isinstance("a loss", Loss)


def test_data_of_a_readers_own_trains_as_the_data_that_it_passes_on():
    config = TrainConfig(n_steps=2, batch_size=2, seq_len=24, n_warmup=1)
    losses = [train(make(), data, config=config).losses for data in (DATA, Windows())]
    assert losses[0] == losses[1]
