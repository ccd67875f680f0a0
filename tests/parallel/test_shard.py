"""Every combination of strategies computes what one process computes; what cannot is refused."""

import itertools

import parity
import pytest
import torch
from llama4_twin import toy
from paper_mesh import on_paper

from llama_from_scratch import family
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.model.unwritten import unwritten
from llama_from_scratch.parallel.fresh import fresh_weights
from llama_from_scratch.parallel.launch import Ranks
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.native import shard_natively
from llama_from_scratch.parallel.shard import shard

TIMEOUT_S = 300.0
TWO = [*((dict(dp=2), dict(stage=stage)) for stage in range(4)),
       *((dict(tp=2), dict(is_sequence_parallel=divides)) for divides in (False, True))]
FOUR = [(dict(dp=2, replicate=2), dict(stage=3, keeps_after_forward=True)),
        (dict(dp=2, replicate=2), dict(stage=1)), (dict(tp=4), dict(is_sequence_parallel=True)),
        *((dict(dp=2, tp=2), dict(stage=stage, is_sequence_parallel=divides))
          for stage, divides in itertools.product(range(4), (False, True)))]


@pytest.fixture(scope="module")
def two():
    with Ranks(2, timeout_s=TIMEOUT_S) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def four():
    with Ranks(4, timeout_s=TIMEOUT_S) as ranks:
        yield ranks


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def known(request):
    its_config = parity.config(is_tied=request.param)
    return its_config, parity.alone(its_config)


def assert_equal(ranks, known, sizes, **how):
    its_config, alone = known
    results = ranks.run(parity.together, shard, its_config, sizes, **how)
    parity.assert_equal(results, alone)
    for step in range(parity.N_STEPS):
        for name, gradient in results[0][step][1].items():
            assert all(torch.equal(gradient, found[step][1][name]) for found in results)


@pytest.mark.parametrize(("sizes", "how"), TWO, ids=str)
def test_two_ranks_compute_what_one_process_computes(two, known, sizes, how):
    assert_equal(two, known, sizes, **how, micro_batch_size=1)


@pytest.mark.parametrize(("sizes", "how"), FOUR, ids=str)
def test_four_ranks_compute_what_one_process_computes(four, known, sizes, how):
    assert_equal(four, known, sizes, **how)


def test_fewer_key_value_heads_than_ranks_and_tokens_that_do_not_divide(four):
    its_config = parity.config(n_kv_heads=1)
    known = its_config, parity.alone(its_config, seq_len=15)
    assert_equal(four, known, dict(dp=2, tp=2), stage=3, is_sequence_parallel=True, seq_len=15,
                 micro_batch_size=1)
    assert_equal(four, known, dict(tp=4), is_sequence_parallel=True, seq_len=15)


def test_a_model_that_never_was_whole_is_the_same(four, known):
    assert_equal(four, known, dict(dp=2, tp=2), stage=3, is_from_meta=True)
    assert_equal(four, known, dict(dp=2, tp=2), stage=0, is_from_meta=True)


@pytest.mark.parametrize(("sizes", "how"), [
    (dict(dp=2), dict(stage=0)), (dict(dp=2, tp=2), dict(stage=3)),
    (dict(dp=2, tp=2), dict(stage=2, is_sequence_parallel=True)),
    (dict(dp=4), dict(stage=3, keeps_after_forward=True))], ids=str)
def test_a_model_that_sees(two, four, sizes, how):
    ranks = two if Mesh(**sizes).size == 2 else four
    known = parity.seeing_alone()
    for found in ranks.run(parity.seeing_together, shard, sizes, **how):
        assert parity.largest_difference(found, known) < 1e-12


# --- bad input ----------------------------------------------------------------------------------


def weights_without(name):
    config = family.tiny("llama-3")
    return ((n, w) for n, w in fresh_weights(config, seed=0) if n != name)


@pytest.mark.parametrize(("how", "words"), [
    (dict(stage=4), "the stage must be one of 0, 1, 2, 3; got 4"),
    (dict(param_dtype=torch.bfloat16), "are for the stages 1 to 3; got stage=0"),
    (dict(is_sequence_parallel=True), "got the mesh dp=1, where tp=1. Choose a larger tp"),
    (dict(weights=[]), "any other model has its own; got weights=some"),
])
def test_options_without_effect_are_refused(how, words):
    with pytest.raises(ValueError, match=words):
        shard(Llama(family.tiny("llama-3")), on_paper(Mesh()), **how)


def test_sequence_parallel_without_tp_is_refused_by_the_twin_too():
    with pytest.raises(ValueError, match="got the mesh dp=1, where tp=1"):
        shard_natively(Llama(family.tiny("llama-3")), on_paper(Mesh()), is_sequence_parallel=True)


def test_weights_that_are_not_there_are_not_handed_out():
    sharded = shard(parity.model_of(parity.config()), on_paper(Mesh()), stage=3)
    with pytest.raises(ValueError, match=r"state_dict would return NaN. Call dict\(sharded.whole"):
        sharded.model.state_dict()
    found, known = dict(sharded.whole(sharded.weights)), parity.model_of(parity.config())
    assert all(torch.equal(found[name], p) for name, p in known.named_parameters())


def test_weights_must_be_complete_and_known():
    config, axes = family.tiny("llama-3"), on_paper(Mesh())
    with pytest.raises(ValueError, match="needs `weights`"):
        shard(unwritten(config), axes)
    with pytest.raises(ValueError, match=r"every parameter needs a weight; norm\.weight got none"):
        shard(unwritten(config), axes, weights=weights_without("norm.weight"))
    one = torch.ones(config.dim)
    for name, words in (("norm.weight", "twice"), ("norm.wait", "as well")):
        weights = itertools.chain(fresh_weights(config, seed=0), [(name, one)])
        with pytest.raises(ValueError, match=f"got '{name}' {words}"):
            shard(unwritten(config), axes, weights=weights)


def test_one_rank_is_a_mesh_too():
    its_config = parity.config()
    sharded = shard(parity.model_of(its_config), on_paper(Mesh()), stage=3)
    for batch, (loss, grads, lengths) in zip(
            parity.batches(its_config.vocab_size), parity.alone(its_config), strict=True):
        assert float(parity.step_of(sharded, batch)) == pytest.approx(loss, abs=1e-12)
        found = dict(sharded.whole({name: p.grad for name, p in sharded.params.items()}))
        assert all(torch.allclose(found[name], grads[name], atol=1e-12) for name in grads)
        assert sharded.gradient_norm() == pytest.approx(lengths[1], rel=1e-12)
        parity.descend(sharded.params.values())
        sharded.after_step()


@pytest.mark.parametrize("stage", range(4))
def test_an_error_in_backward_leaves_no_gradient_for_the_next_step(two, stage):
    for found, known in two.run(parity.after_an_error, stage):
        assert found == known


@pytest.mark.parametrize("stage", range(4))
def test_after_an_error_in_the_last_of_two_micro_batches_the_first_is_forgotten_too(two, stage):
    for found, known in two.run(parity.after_an_error, stage, micro_batch_size=1):
        assert found == known


@pytest.mark.parametrize("stage", range(4))
def test_a_model_with_experts_is_sharded_along_dp(two, stage):
    """Also those that no token of this rank, or of any rank, went through."""
    config = toy(step=2, n_experts=16)
    parity.assert_equal(
        two.run(parity.together, shard, config, dict(dp=2), stage=stage, micro_batch_size=1),
        parity.alone(config))


@pytest.mark.parametrize("divides", [False, True])
def test_norms_of_heads_and_the_temperature_are_the_same_on_ranks_along_tp(two, divides):
    config = toy(step=9)
    parity.assert_equal(two.run(parity.together, shard, config, dict(tp=2),
                                is_sequence_parallel=divides), parity.alone(config))


@pytest.mark.parametrize("divides", [False, True])
def test_experts_stay_whole_along_tp_and_only_the_shared_one_is_cut(two, divides):
    """With sequence parallel each rank routes its own tokens, so experts' gradients are added up.
    """
    config = toy(step=2, n_layers=2, n_active=2)
    known = config, parity.alone(config, seq_len=15)
    assert_equal(two, known, dict(tp=2), is_sequence_parallel=divides, seq_len=15)
    shapes = {name: p.shape for name, p in Llama(config).named_parameters()}
    sharded = shard(Llama(config), on_paper(Mesh(tp=2)), is_sequence_parallel=divides)
    cut = {name for name, p in sharded.params.items() if p.shape != shapes[name]}
    assert {name for name in cut if "feed_forward" in name and name.startswith("layers.1.")} == {
        f"layers.1.feed_forward.shared.{leaf}.weight" for leaf in ("w_gate", "w_up", "w_down")}
    for name in ("layers.1.feed_forward.experts.w_up",
                 "layers.1.feed_forward.router.directions.weight"):
        assert sharded.slices[name].is_partial == divides and name not in cut
