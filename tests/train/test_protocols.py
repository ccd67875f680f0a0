"""What a run asks of its parts is what the parts of the library have."""

import torch
from torch import nn

from llama_from_scratch.kernels import FusedAdamW
from llama_from_scratch.tokenizer.byte_bpe import BEGIN_AND_END, Tokenizer
from llama_from_scratch.train.data import Packed
from llama_from_scratch.train.loss import sum_of_nats
from llama_from_scratch.train.optimizer import AdamW, Group
from llama_from_scratch.train.protocols import Data, Loss, Optimizer

GROUPS = [Group(params={"w": nn.Parameter(torch.ones(3))}, weight_decay=0.1)]


def test_data_and_both_optimizers_and_the_loss_of_the_library_fit():
    bytes_alone = Tokenizer({bytes([i]): i for i in range(256)}, special_tokens=BEGIN_AND_END)
    assert isinstance(Packed(["a text"], bytes_alone), Data)
    assert isinstance(AdamW(GROUPS), Optimizer)
    assert isinstance(FusedAdamW(GROUPS, emulate=True), Optimizer)
    assert isinstance(sum_of_nats, Loss)


def test_what_lacks_a_method_does_not_fit():
    assert not isinstance(["a text"], Data)
    assert not isinstance(torch.optim.AdamW(nn.Linear(2, 2).parameters()), Data)
    assert not isinstance(nn.Linear(2, 2).weight, Optimizer)
