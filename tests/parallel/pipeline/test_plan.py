"""The choices of a pipeline."""

import pytest

from llama_from_scratch.parallel.pipeline.plan import PipelinePlan
from llama_from_scratch.parallel.pipeline.schedules import make


def test_a_plan_makes_the_schedule_of_its_name():
    plan = PipelinePlan(schedule="interleaved", n_chunks=2, n_together=5)
    assert plan.on(4, n_micro_batches=10) == make("interleaved", 4, n_micro_batches=10, n_chunks=2,
                                                  n_together=5)
    assert PipelinePlan().on(2, n_micro_batches=3) == make("1f1b", 2, n_micro_batches=3)


def test_only_zero_bubble_splits_backward():
    for name, n_chunks in (("gpipe", 1), ("1f1b", 1), ("interleaved", 2), ("zero_bubble", 1)):
        plan = PipelinePlan(schedule=name, n_chunks=n_chunks)
        assert plan.splits_backward == plan.on(2, n_micro_batches=4).splits_backward


@pytest.mark.parametrize(("how", "words"), [
    (dict(schedule="1f2b"), "did you mean '1f1b'"),
    (dict(n_chunks=2), "only the schedule 'interleaved' has more than one chunk"),
    (dict(n_together=2), "n_together chooses when the schedule 'interleaved'"),
    (dict(schedule="interleaved"), "needs at least 2 chunks"),
    (dict(n_chunks=0, schedule="interleaved"), "number of chunks must be a whole number")])
def test_a_plan_that_cannot_be_is_refused_when_it_is_made(how, words):
    with pytest.raises(ValueError, match=words):
        PipelinePlan(**how)
