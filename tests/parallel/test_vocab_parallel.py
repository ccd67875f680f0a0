import on_ranks
import pytest
import tensor_parallel_on_ranks as work
import torch
from torch import nn
from torch.nn import functional as F

from llama_from_scratch.parallel.launch import Ranks
from llama_from_scratch.parallel.vocab_parallel import VocabEmbedding, cross_entropy
from llama_from_scratch.parallel.world import alone
from llama_from_scratch.train.data import IGNORE


@pytest.fixture(scope="module")
def ranks():
    with Ranks(4, timeout_s=on_ranks.TIMEOUT_S) as ranks:
        ranks.run(work.make_groups)
        yield ranks


@pytest.mark.parametrize("n_ranks", [2, 4])
def test_gradient_of_the_loss_is_its_slope(ranks, n_ranks):
    # Central differences with a step of 1e-5 are right to about 1e-10.
    assert max(ranks.run(work.finite_differences, n_ranks=n_ranks)) < 1e-9


def test_loss_and_gradients_are_pytorch_s(ranks):
    for loss, logits, rows in ranks.run(work.like_pytorch, n_ranks=4):
        assert max(loss, logits, rows) < 1e-14


def test_huge_logits_overflow_nowhere():
    logits = torch.tensor([[3e38, 1e38, -3e38]])
    found = cross_entropy(logits, torch.tensor([0]), group=alone())
    assert found.item() == 0


def test_bf16_logits_are_widened():
    torch.manual_seed(0)
    logits = torch.randn(5, 300).bfloat16().requires_grad_()
    targets = torch.arange(5)
    found = cross_entropy(logits, targets, group=alone())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, F.cross_entropy(logits.float(), targets, reduction="none"))
    found.sum().backward()
    assert logits.grad.dtype == torch.bfloat16


def test_ignored_targets_add_nothing():
    logits = torch.randn(2, 3, 4, requires_grad=True)
    targets = torch.tensor([[1, IGNORE, 2], [IGNORE, 0, 3]])
    found = cross_entropy(logits, targets, group=alone())
    assert (found == 0).tolist() == (targets == IGNORE).tolist()
    found.sum().backward()
    assert (logits.grad == 0).all(-1).tolist() == (targets == IGNORE).tolist()


@pytest.mark.parametrize("target", [4, -1, -99])
def test_targets_outside_of_the_vocabulary_are_refused(target):
    with pytest.raises(ValueError, match=f"targets run from 0 to 3, .*; got {target} to {target}"):
        cross_entropy(torch.randn(2, 4), torch.tensor([target, IGNORE]), group=alone())


@pytest.mark.parametrize("wrong", [4, -1])
def test_ids_without_a_row_are_refused(wrong):
    part = VocabEmbedding(nn.Embedding(4, 2), alone())
    with pytest.raises(IndexError):
        part(torch.tensor([0, wrong]))
