import dataclasses

import pytest
from llama4_twin import toy
from small_seeing import seeing_model
from torch import nn

from llama_from_scratch import family
from llama_from_scratch.config import Dense, Experts, LayerSpec
from llama_from_scratch.model.unwritten import unwritten
from llama_from_scratch.parallel import tensor_parallel
from llama_from_scratch.parallel.divisible import refuse_unfit
from llama_from_scratch.parallel.world import alone

TINY = dataclasses.replace(family.tiny("llama-3.1"), dim=48, n_heads=12, n_kv_heads=6, ffn_dim=96,
                           vocab_size=600)


def refusal(n_ranks, **sizes):
    with pytest.raises(ValueError) as error:
        refuse_unfit(unwritten(dataclasses.replace(TINY, **sizes)), n_ranks=n_ranks)
    return str(error.value)


def test_ranks_that_divide_everything_are_accepted():
    for n_ranks in (1, 2, 3, 6):
        refuse_unfit(unwritten(TINY), n_ranks=n_ranks)


def test_more_ranks_than_key_value_heads_are_accepted_if_a_multiple():
    refuse_unfit(unwritten(TINY), n_ranks=12)
    assert "got n_kv_heads=6 for 4 ranks" in refusal(4)


@pytest.mark.parametrize(("sizes", "told", "larger"), [
    (dict(n_heads=10, n_kv_heads=2, explicit_head_dim=4), "n_heads=10", "n_heads=12"),
    (dict(n_kv_heads=3), "n_kv_heads=3", "n_kv_heads=4"),
    (dict(n_kv_heads=4, ffn_dim=90), "ffn_dim=90", "ffn_dim=92"),
    (dict(n_kv_heads=4, vocab_size=601), "vocab_size=601", "vocab_size=604"),
    (dict(n_kv_heads=4, layers=(LayerSpec(), LayerSpec(feed_forward=Dense(width=30)))),
     "the width of 1.feed_forward=30", "the width of 1.feed_forward=32"),
])
def test_sizes_that_do_not_divide_are_named_with_those_that_would(sizes, told, larger):
    message = refusal(4, **sizes)
    assert f"got {told} for 4 ranks" in message
    assert message.endswith(f"4 ranks would fit {larger}")


def test_the_numbers_of_ranks_that_fit_are_named():
    assert "This model fits on 1, 2, 3, 6 or 12 ranks" in refusal(5)
    assert "This model fits on 1 rank;" in refusal(4, vocab_size=601)


def test_an_encoder_is_cut_too_so_its_sizes_count():
    model = seeing_model(60)  # its encoder has 2 heads
    refuse_unfit(model, n_ranks=2)
    with pytest.raises(ValueError, match=r"got n_heads=2, vision\.n_heads=2 for 4 ranks"):
        refuse_unfit(model, n_ranks=4)


def test_a_model_is_split_once():
    model = unwritten(TINY)
    tensor_parallel.split(model, alone())
    with pytest.raises(ValueError, match="wo is a RowLinear. Split a plain model, once; .*"
                                         "other parts, use shard_natively or, without tp"):
        refuse_unfit(model, n_ranks=1)


def test_a_part_that_nobody_knows_how_to_cut_is_named():
    model = unwritten(TINY)
    model.layers[1].feed_forward = nn.Linear(48, 48)
    with pytest.raises(ValueError, match=r"layers\.1\.feed_forward is a Linear"):
        refuse_unfit(model, n_ranks=2)


def test_only_a_llama_is_split():
    with pytest.raises(ValueError, match="splits a Llama; got Linear"):
        refuse_unfit(nn.Linear(2, 2), n_ranks=2)


def test_of_a_layer_with_experts_the_shared_one_alone_is_cut():
    refuse_unfit(unwritten(toy()), n_ranks=2)
    odd = Experts(n_experts=3, n_active=1, width=25, shared_width=26)
    its_config = dataclasses.replace(TINY, layers=(LayerSpec(feed_forward=odd),))
    refuse_unfit(unwritten(its_config), n_ranks=2)
    with pytest.raises(ValueError, match=r"the width of 0\.feed_forward\.shared=26 for 3 ranks"):
        refuse_unfit(unwritten(its_config), n_ranks=3)
