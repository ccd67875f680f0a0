"""The torch-native pipeline computes what one process computes; what PyTorch cannot do is refused.
"""

import on_ranks
import parity
import pytest
import torch
from paper_mesh import on_paper
from pipeline_on_ranks import deep_config
from torch import nn
from torch.distributed.pipelining._backward import stage_backward_input, stage_backward_weight

from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.native import shard_natively
from llama_from_scratch.parallel.pipeline.plan import PipelinePlan
from llama_from_scratch.vision.adapter import VisionLlama

INTERLEAVED = PipelinePlan(schedule="interleaved", n_chunks=2)
ZERO_BUBBLE = PipelinePlan(schedule="zero_bubble")
ON_TWO = [{}, dict(pipeline=PipelinePlan(schedule="gpipe")), dict(pipeline=INTERLEAVED),
          dict(pipeline=ZERO_BUBBLE)]
ON_FOUR = [(dict(pp=2, dp=2), dict(stage=2, pipeline=ZERO_BUBBLE)),
           (dict(pp=2, dp=2), dict(stage=3, pipeline=INTERLEAVED)), (dict(pp=2, tp=2), {})]


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def known(request):
    its_config = deep_config(4, is_tied=request.param)
    return its_config, parity.alone(its_config)


@pytest.fixture(scope="module")
def two():
    with on_ranks.ranks(2) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def four():
    with on_ranks.ranks(4) as ranks:
        yield ranks


@pytest.mark.parametrize("how", ON_TWO, ids=str)
def test_two_ranks_compute_what_one_process_computes(two, known, how):
    found = two.run(parity.together, shard_natively, known[0], dict(pp=2), micro_batch_size=1,
                    **how)
    parity.assert_equal(found, known[1])


@pytest.mark.parametrize(("sizes", "how"), ON_FOUR, ids=str)
def test_four_ranks_compute_what_one_process_computes(four, known, sizes, how):
    found = four.run(parity.together, shard_natively, known[0], sizes, micro_batch_size=1,
                     is_from_meta="stage" in how, **how)
    parity.assert_equal(found, known[1])


@pytest.mark.parametrize(("sizes", "how", "words"), [
    (dict(pp=2, dp=2), dict(stage=0), "DDP does not take another forward pass"),
    (dict(pp=2), dict(pipeline=PipelinePlan(recomputes=True)), "its pipeline neither recomputes"),
    (dict(pp=2, tp=2), dict(is_sequence_parallel=True), "its pipeline sends whole tokens"),
    (dict(dp=2, ep=2), dict(stage=2), "it does not divide experts among ranks"),
])
def test_what_torch_cannot_do_is_refused_with_the_reason(sizes, how, words):
    with pytest.raises(ValueError, match=f"(?s)the native engine cannot shard.*{words}"):
        shard_natively(Llama(deep_config(4)), on_paper(Mesh(**sizes)), **how)


def test_a_model_that_sees_and_a_loss_of_the_reader_are_refused(two):
    model = parity.seeing_model()
    assert isinstance(model, VisionLlama)
    with pytest.raises(ValueError, match="a pipeline is cut from a Llama, not from a VisionLlama"):
        shard_natively(model, on_paper(Mesh(pp=2)))


# --- what PyTorch's divided backward pass once got wrong ------------------------------------------


class SharedWeight(nn.Module):
    """x w w: pytorch#180952 doubled the gradient of a weight at a node and at the node after it."""

    def __init__(self):
        super().__init__()
        self.w = nn.Linear(6, 6, bias=False)

    def forward(self, x):
        return torch.tanh(x @ self.w.weight) @ self.w.weight


class SeveralOutputs(nn.Module):
    """chunk(qkv): pytorch#170277 added gradients of different outputs of one node."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(6, 18, bias=False)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return q * k + torch.tanh(v)


@pytest.mark.parametrize("kind", (SharedWeight, SeveralOutputs))
def test_pytorch_s_divided_backward_pass_is_right_in_this_version(kind):
    torch.manual_seed(0)
    stage, x = kind().double(), torch.randn(3, 6).double()
    gradient = torch.randn(3, 6).double()
    stage(x.requires_grad_()).backward(gradient)
    known = [p.grad for p in stage.parameters()]
    stage.zero_grad()
    y = stage(x)
    _, groups = stage_backward_input([y], [gradient], [x], stage.parameters())
    stage_backward_weight(stage.parameters(), groups)
    assert all(torch.allclose(p.grad, grad, rtol=0, atol=1e-12)
               for p, grad in zip(stage.parameters(), known, strict=True))
