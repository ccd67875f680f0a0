"""The torch-native twin computes what one process computes, on every mesh that it takes."""

import on_ranks
import parity
import pytest
import torch
from llama4_twin import toy
from paper_mesh import on_paper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import parallelize_module

from llama_from_scratch import family
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.native import shard_natively
from llama_from_scratch.parallel.native_plan import plan

ON_TWO = [(dict(dp=2), dict(stage=0)), (dict(dp=2), dict(stage=2)),
          (dict(dp=2), dict(stage=3)), (dict(tp=2), {}),
          (dict(tp=2), dict(is_sequence_parallel=True))]
ON_FOUR = [(dict(dp=2, replicate=2), dict(stage=3)), (dict(dp=4), dict(stage=0)),
           (dict(dp=2, tp=2), dict(stage=3)),
           (dict(dp=2, tp=2), dict(stage=2, is_sequence_parallel=True))]


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def known(request):
    its_config = parity.config(is_tied=request.param)
    return its_config, parity.alone(its_config)


@pytest.fixture(scope="module")
def two():
    with on_ranks.ranks(2) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def four():
    with on_ranks.ranks(4) as ranks:
        yield ranks


def assert_equal(ranks, known, sizes, **how):
    its_config, alone_ = known
    parity.assert_equal(ranks.run(parity.together, shard_natively, its_config, sizes, **how),
                        alone_)


@pytest.mark.parametrize(("sizes", "how"), ON_TWO, ids=str)
def test_two_ranks_compute_what_one_process_computes(two, known, sizes, how):
    assert_equal(two, known, sizes, **how, micro_batch_size=1)


@pytest.mark.parametrize(("sizes", "how"), ON_FOUR, ids=str)
def test_four_ranks_compute_what_one_process_computes(four, known, sizes, how):
    assert_equal(four, known, sizes, **how)


def test_a_model_that_never_was_whole_is_the_same(two, known):
    assert_equal(two, known, dict(dp=2), stage=3, is_from_meta=True)
    assert_equal(two, known, dict(tp=2), is_sequence_parallel=True, is_from_meta=True)


# --- what PyTorch's own parts still do ------------------------------------------------------------


def tie_after_torch(world):
    """Whether PyTorch's own function keeps a tied head tied, and whether the twin does."""
    its_config = parity.config(is_tied=True)
    model, mesh = parity.model_of(its_config), init_device_mesh("cpu", (world.size,))
    parallelize_module(model, mesh, plan(its_config, is_sequence_parallel=False))
    twin = shard_natively(parity.model_of(its_config), Mesh(tp=world.size).on(world)).model
    return [each.output.weight is each.tok_embeddings.weight for each in (model, twin)]


def norm_by_torch(world):
    """What PyTorch's norm says of gradients on two meshes at once; the twin's norm."""
    its_config = parity.config()
    sharded = shard_natively(parity.model_of(its_config), Mesh(dp=2, tp=2).on(world), stage=3)
    parity.step_of(sharded, next(parity.batches(its_config.vocab_size)))
    try:
        torch.nn.utils.get_total_norm([p.grad for p in sharded.model.parameters()])
        said = "accepted"
    except RuntimeError as error:
        said = str(error)
    return said, float(sharded.gradient_norm())


def test_a_tie_is_lost_by_parallelize_module_and_kept_by_the_twin(two):
    """Megatron-LM#6500 and piper#13 are the same fault: copies of a tied matrix diverge."""
    assert two.run(tie_after_torch) == [[False, True]] * 2


def test_gradients_on_two_meshes_have_no_common_norm_in_torch(four):
    """torchtune#2420: clipping refuses DTensors of different meshes. The twin takes each alone."""
    said, lengths = zip(*four.run(norm_by_torch), strict=True)
    assert all("mesh" in each for each in said), said
    _, known, _ = parity.alone(parity.config())[0][2]
    assert len(set(lengths)) == 1 and lengths[0] == pytest.approx(known, rel=1e-12)


@pytest.mark.parametrize(("changes", "how", "words"), [
    ({}, dict(stage=1), r"its stages are 0 \(DDP\), 2 and 3"),
    (dict(has_qkv_bias=True), dict(tp=2), "no biases"),
    ({}, dict(tp=8), "tp=8 must divide the 4 heads and 2 key/value heads"),
    (dict(vocab_size=511), dict(tp=2), "must divide the vocabulary of 511"),
    ({}, dict(tp=2, dp=2), "DDP does not take the DTensors of tensor parallelism: choose stage 2"),
])
def test_what_torch_cannot_do_is_refused_with_the_reason(changes, how, words):
    model, stage = Llama(parity.config(**changes)), how.pop("stage", 0)
    axes = on_paper(Mesh(**how))
    with pytest.raises(ValueError, match=f"(?s)the native engine cannot shard.*{words}"):
        shard_natively(model, axes, stage=stage)


def test_a_model_that_sees_is_refused_along_tp():
    model = family.tiny("llama-3.2-vision").new_model()
    with pytest.raises(ValueError, match="for a Llama, not for a VisionLlama"):
        shard_natively(model, on_paper(Mesh(tp=2)))


def test_experts_are_refused_along_tp_and_taken_along_dp(two):
    with pytest.raises(ValueError, match="its plan for tp has no experts: choose tp=1"):
        shard_natively(Llama(toy()), on_paper(Mesh(tp=2)))
    config = toy(step=2, n_active=2)
    alone = parity.alone(config)
    for stage in (0, 3):
        found = two.run(parity.together, shard_natively, config, dict(dp=2), stage=stage)
        parity.assert_equal(found, alone)
