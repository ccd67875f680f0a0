"""Both answers of a pair stay together, whatever the batch, the micro-batch and the epoch."""

from dataclasses import replace

import preference_cases as cases
import pytest
import torch
from paper_mesh import on_paper

from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.training import rows_of
from llama_from_scratch.tokenizer.chat_format import LLAMA_3, Message
from llama_from_scratch.train.data import IGNORE
from llama_from_scratch.train.protocols import StepBatch
from llama_from_scratch.tune.pair_rows import PairExample, PairRows, pair_examples_of
from llama_from_scratch.tune.preferences import Preference, preferred
from llama_from_scratch.tune.rows import TokenExample


def examples(n, *, seed=0):
    return pair_examples_of(cases.pairs(n, seed=seed), cases.tokenizer(), cases.FORMAT,
                            max_tokens=256)


def rows(n=20):
    return PairRows(examples(n), cases.tokenizer())


def text(ids):
    return cases.tokenizer().decode([i for i in ids if i != IGNORE])


def test_targets_are_the_answers_with_their_ends_chosen_before_rejected():
    batch = rows(4).of([2, 0])
    told = cases.pairs(4)
    expected = [f"{answer[0].content}<|eot_id|>" for pair in (told[2], told[0])
                for answer in (pair.chosen, pair.rejected)]
    assert [text(row) for row in batch.rows.targets.tolist()] == expected
    assert batch.numbers.tolist() == [2, 0]
    assert batch.margins.tolist() == [told[2].margin, told[0].margin]
    assert batch.ids.shape == (2, 2, batch.rows.ids.shape[1])
    assert torch.equal(batch.ids[1, 0], batch.rows.ids[2])


def test_a_step_can_read_pairs_and_rows():
    batch = rows(2).of([0, 1])
    assert isinstance(batch, StepBatch) and isinstance(batch.rows, StepBatch)
    assert not isinstance(batch.rows.ids, StepBatch)


def test_a_pair_is_one_target_and_the_mean_length_is_that_of_the_whole_batch():
    batch = rows().of(range(6))
    assert batch.n_targets == 6
    n_chosen = sum(pair.chosen.n_learned for pair in examples(20)[:6])
    assert batch.n_chosen == n_chosen / 6
    parts = batch.split(4)
    assert [part.n_targets for part in parts] == [4, 2]
    assert {part.n_chosen for part in parts} == {batch.n_chosen}
    assert torch.cat([part.ids for part in parts]).equal(batch.ids)
    assert torch.cat([part.numbers for part in parts]).tolist() == list(range(6))
    assert torch.cat([part.margins for part in parts]).equal(batch.margins)


def test_each_rank_gets_whole_pairs():
    batch = rows(6).of([5, 1, 2, 4])
    found = rows_of(batch, on_paper(Mesh(dp=2)).data)
    assert found.numbers.tolist() == [5, 1]
    assert torch.equal(found.ids, batch.ids[:2]) and found.n_chosen == batch.n_chosen


def test_an_epoch_has_each_pair_once_and_the_next_one_another_order():
    data, how = rows(20), dict(batch_size=5, seq_len=256, seed=3)
    epochs = [[data.batch(step, **how).numbers.tolist() for step in range(first, first + 4)]
              for first in (0, 4)]
    for epoch in epochs:
        assert sorted(number for batch in epoch for number in batch) == list(range(20))
    assert epochs[0] != epochs[1]
    assert rows(20).batch(5, **how).numbers.tolist() == epochs[1][1]  # of the step alone
    assert data.batch(0, **(how | {"seed": 4})).numbers.tolist() != epochs[0][0]


def test_fewer_pairs_than_a_batch_are_all_in_every_batch():
    data = rows(3)
    for step in range(3):
        batch = data.batch(step, batch_size=8, seq_len=256, seed=0)
        assert sorted(batch.numbers.tolist()) == [0, 1, 2]


def test_pairs_of_similar_length_share_a_batch():
    data = rows(64)
    widths = [data.batch(step, batch_size=4, seq_len=256, seed=0).ids.shape[-1]
              for step in range(16)]
    lengths = sorted(pair.n_ids - 1 for pair in data.examples)
    assert sorted(widths) == lengths[3::4]  # the smallest widths that are possible


def test_the_digest_changes_with_any_part_of_any_pair():
    told = examples(2)
    swapped = PairExample(chosen=told[0].rejected, rejected=told[0].chosen, margin=told[0].margin)
    digests = {PairRows(each, cases.tokenizer()).digest for each in (
        told, told[:1], [swapped, told[1]], [replace(told[0], margin=9.0), told[1]])}
    assert len(digests) == 4
    assert PairRows(examples(2), cases.tokenizer()).digest in digests


def test_no_pairs_a_pair_too_long_and_an_empty_answer_are_refused_with_the_number():
    tokenizer, format = cases.tokenizer(), cases.FORMAT
    with pytest.raises(ValueError, match="needs pairs; got none"):
        pair_examples_of([], tokenizer, format, max_tokens=9)
    with pytest.raises(ValueError, match="at least one pair; got none"):
        PairRows([], tokenizer)
    told = [preferred("a", "b", "c"), preferred("a", "b " * 40, "c")]
    with pytest.raises(ValueError, match="holds 40 tokens, and pair 1 has"):
        pair_examples_of(told, tokenizer, format, max_tokens=40)
    with pytest.raises(ValueError, match="pair 1: an answer has words or calls; message 1"):
        pair_examples_of([told[0], preferred("a", "b", "  ")], tokenizer, format, max_tokens=40)
    data = PairRows(pair_examples_of(told, tokenizer, format, max_tokens=256), tokenizer)
    with pytest.raises(ValueError, match="seq_len=20 holds 21 tokens, and pair 1 has"):
        data.batch(0, batch_size=2, seq_len=20, seed=0)


def test_answers_that_a_format_writes_alike_are_refused():
    assert LLAMA_3.strips
    with pytest.raises(ValueError, match="pair 0: .* writes both as the same"):
        pair_examples_of([preferred("a", "b", " b")], cases.tokenizer(), LLAMA_3, max_tokens=99)


def test_a_row_can_differ_in_its_end_only():
    ends = (True, False)
    pair = Preference(prompt=(Message(role="user", content="a"),), **{
        name: (Message(role="assistant", content="b", ends_turn=is_end),)
        for name, is_end in zip(("chosen", "rejected"), ends, strict=True)})
    [example] = pair_examples_of([pair], cases.tokenizer(), cases.FORMAT, max_tokens=99)
    assert [i for i, (a, b) in enumerate(zip(example.chosen.ids, example.rejected.ids,
                                             strict=True)) if a != b] == [example.n_ids - 1]
    assert isinstance(example.chosen, TokenExample)
