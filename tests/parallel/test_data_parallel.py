"""Ranks that share the rows give the numbers of one process; so do none of the known mistakes."""

import pytest
import ranks_data_parallel as on_ranks
import torch
import toy_parallel as toy

from llama_from_scratch.parallel.data_parallel import DataParallel
from llama_from_scratch.parallel.launch import RankFailed, Ranks
from llama_from_scratch.parallel.world import alone

EXACT = 1e-12  # float64 and SGD: only the order of sums differs


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request):
    with Ranks(request.param, timeout_s=120.0) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def four():
    with Ranks(4, timeout_s=120.0) as ranks:
        yield ranks


def one_process(*, is_tied=False, n_micro=1):
    model = toy.Toy(is_tied=is_tied)
    return toy.observed(model, toy.OneProcess(model), n_micro=n_micro)


def test_ranks_read_unequal_numbers_of_targets_and_only_one_uses_the_part_that_rows_skip():
    (rows,) = toy.batch(0)
    shares = [rows.share(rank, 4) for rank in range(4)]
    assert len({share.n_targets for share in shares}) == 4
    assert [bool(share.flags.any()) for share in shares] == [False, False, False, True]
    sizes = [p.numel() for p in toy.Toy().parameters()]
    assert max(sizes) > 1000 * min(sizes)


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize("way", on_ranks.WAYS)
@pytest.mark.parametrize("n_micro", [1, 3])
def test_equals_one_process_and_all_ranks_have_the_same_bits(ranks, way, is_tied, n_micro):
    found = ranks.run(on_ranks.trained, way=way, is_tied=is_tied, n_micro=n_micro)
    seen = [each[0] for each in found]
    far = toy.distance(seen[0], one_process(is_tied=is_tied, n_micro=n_micro))
    assert max(far.values()) < EXACT, far
    assert toy.same_bits(seen)


@pytest.mark.parametrize(("way", "n_buckets"), [("one by one", 12), ("flat", 1), ("buckets", 6)])
def test_sends_each_gradient_once_per_step_in_the_same_order_on_all_ranks(ranks, way, n_buckets):
    for n_micro in (1, 3):  # accumulation sends no more
        found = ranks.run(on_ranks.trained, way=way, n_micro=n_micro)
        notes = found[0][1]
        assert all(each[1] == notes for each in found)
        assert len(notes) == 3 * n_buckets and notes[:n_buckets] * 3 == notes
        n_params = sum(p.numel() for p in toy.Toy().parameters() if p.requires_grad)
        assert found[0][2] == 3 * 8 * n_params
    names = [name for name, p in toy.Toy().named_parameters() if p.requires_grad]
    assert notes[0].split()[0] == names[-1], "the last layer's gradients come first"


@pytest.mark.parametrize("mutant", [
    "averaged", "mean of means", "not waited for", "skipped, not reduced", "sent too early"])
def test_catches_a_mistake(four, mutant):
    found = four.run(on_ranks.trained, mutant=mutant, n_micro=2)
    seen = [each[0] for each in found]
    far = toy.distance(seen[1], one_process(n_micro=2))
    assert far["grads"] > 1e-4 or not toy.same_bits(seen)


def test_ranks_that_send_what_is_full_first_come_first_sent_disagree_on_the_order():
    with Ranks(2, timeout_s=120.0, is_debug=True) as ranks:
        ranks.run(on_ranks.trained)
        with pytest.raises(RankFailed, match="the same collectives in the same order"):
            ranks.run(on_ranks.trained, mutant="first come, first sent")


def test_sends_while_backward_computes(ranks):
    found = ranks.run(on_ranks.overlap)
    assert {n_calls for _, n_calls in found} == {12}
    n_early = [n for n, _ in found]
    assert n_early == [3] * (ranks.n_ranks - 1) + [10], (
        "only the last rank uses the part of the fourth bucket; no rank uses that of the eleventh")


def test_adds_bfloat16_gradients_in_fp32_and_in_one_bucket_with_fp32_ones(ranks):
    for grads, dtypes in ranks.run(on_ranks.bfloat16):
        total = 255 + 17 * ranks.n_ranks
        assert torch.equal(grads["narrow"], torch.full((2,), float(total)).bfloat16())
        assert torch.equal(grads["wide"], torch.full((3,), float(total)))
        assert torch.equal(grads["narrow_too"], torch.zeros(1).bfloat16())
        assert dtypes == [torch.float32]


def test_two_models_on_the_same_ranks_do_not_disturb_each_other(ranks):
    for found in ranks.run(on_ranks.two_models):
        assert all(set(far.values()) == {0.0} for far in found)


def test_leaves_the_plain_model_when_it_is_closed(ranks):
    assert all(ranks.run(on_ranks.closed))


def test_gives_memory_to_a_model_on_the_meta_device_and_keeps_its_head_tied(ranks):
    for is_nan, is_tied, is_equal, seen in ranks.run(on_ranks.filled):
        assert is_nan and is_tied and is_equal
        assert max(toy.distance(seen, one_process(is_tied=True)).values()) < EXACT


def test_gradients_have_one_memory_which_does_not_shrink_with_more_ranks(ranks):
    """verl#7458: accumulation without communication keeps all gradients on every rank."""
    n_bytes = 8 * sum(p.numel() for p in toy.Toy().parameters() if p.requires_grad)
    assert ranks.run(on_ranks.memory) == [(n_bytes, True)] * ranks.n_ranks


def test_refuses_calls_that_would_not_add_up_and_models_that_differ(ranks):
    for told in ranks.run(on_ranks.refusals)[1:2]:
        assert "must be called inside of micro_batch" in told["outside"]
        assert "after micro_batch(is_last=True)" in told["no last"]
        assert "one backward" in told["two backwards"]
        assert "Call finish()" in told["after the last"]
        assert "scale, unused, norm and others have one" in told["old gradients"]
        assert "got 'nothing'" in told["other name"]
        assert "scale has the shape (1,); got a weight of (3,)" in told["other shape"]
        assert "at least 0" in told["negative"]
        assert "torch.float32, trained on rank 1 and (3, 2) torch.float32" in told["other model"]
        assert "frozen" in told["other frozen"]


def test_a_single_rank_needs_no_process_group():
    model = toy.Toy()
    seen = toy.observed(model, DataParallel(model, alone(), bucket_bytes=8000), n_micro=2)
    assert max(toy.distance(seen, one_process(n_micro=2)).values()) == 0.0
