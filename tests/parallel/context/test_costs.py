"""The formulas of what context parallelism sends: equal to the log, as whole numbers."""

import pytest
import ranks_context as work
import torch

from llama_from_scratch import family
from llama_from_scratch.parallel.context.costs import context_bytes, context_exchanges

NAME = "chunked, one kv head"


def exchanges(name=NAME, **changes):
    sizes = dict(style="gather", n_ranks=4, n_rows=2, seq_len=work.S, dtype=torch.float64)
    return context_exchanges(work.config(name), **sizes | changes)


@pytest.mark.parametrize(("style", "n_ranks", "is_bf16", "is_training", "name", "tp"), [
    ("gather", 2, False, True, NAME, 1), ("gather", 4, True, True, "grouped", 1),
    ("gather", 4, False, False, NAME, 1), ("ring", 2, True, True, NAME, 1),
    ("ring", 4, False, True, "grouped", 1), ("ring", 4, True, False, NAME, 1),
    ("ring", 2, False, True, "grouped", 2)])
def test_bytes_equal_the_log_of_a_real_pass(ranks, style, n_ranks, is_bf16, is_training, name, tp):
    rows = exchanges(name, style=style, n_ranks=n_ranks, is_training=is_training, tp=tp,
                     dtype=torch.bfloat16 if is_bf16 else torch.float64)
    expected = {}
    for row in rows:
        assert row.sent_bytes.denominator == 1
        expected[row.op] = expected.get(row.op, 0) + row.sent_bytes
    for log in ranks.run(work.logged, name, style=style, n_ranks=n_ranks, is_bf16=is_bf16,
                         is_training=is_training, tp=tp):
        found = {}
        for (op, _), sent in log.items():
            if op != "receive":
                found[op] = found.get(op, 0) + sent
        assert found == expected


def test_a_ring_sends_as_much_forward_and_twice_as_much_backward():
    gather, ring = ({row.what: row.sent_bytes for row in exchanges(style=style)}
                    for style in ("gather", "ring"))
    assert ring["keys and values, forward"] == gather["keys and values, forward"]
    backward = ring["keys and values, backward"] + ring["gradients of keys and values"]
    assert backward == 2 * gather["keys and values, backward"]


def test_llama_3_s_longest_rows_need_this_many_bytes_per_layer():
    # 405B: 8 key/value heads of 128 on 8 ranks along tp; 16 along cp; 131,072 tokens in bf16.
    rows = context_exchanges(family.config("llama-3.1-405b"), style="gather", n_ranks=16, n_rows=1,
                             seq_len=131_072, dtype=torch.bfloat16, tp=8, n_layers=1)
    by_what = {row.what: row.sent_bytes for row in rows}
    assert by_what["keys and values, forward"] == 15 * 2 * 131_072 * 128 * 2 // 16


def test_micro_batches_and_layers_multiply_and_one_rank_sends_nothing():
    once, thrice = exchanges(), exchanges(n_micro_batches=3)
    assert context_bytes(thrice) == 3 * context_bytes(once)
    assert exchanges(n_ranks=1) == []
    one_layer = {row.what: row.times for row in exchanges(style="ring", n_layers=1)}
    assert one_layer["keys and values, forward"] == 3


def test_other_styles_and_lengths_are_refused():
    with pytest.raises(ValueError, match="are gather and ring; got 'ulysses'"):
        exchanges(style="ulysses")
    with pytest.raises(ValueError, match="got seq_len=25 for cp=4"):
        exchanges(seq_len=25)
