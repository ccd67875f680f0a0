import on_ranks
import pytest

from llama_from_scratch.parallel.together import together
from llama_from_scratch.parallel.world import alone


def work(world, kinds):
    """What each rank returns, or the kind and the words of what it raises."""
    def fail():
        if kinds.get(world.rank):
            raise kinds[world.rank](f"because {world.rank}")
        return 10 * world.rank

    try:
        return together(world, fail)
    except Exception as error:  # any, because the test compares its kind
        return type(error).__name__, str(error)


def test_all_ranks_return_or_all_raise_the_first_error():
    with on_ranks.ranks(3) as ranks:
        assert ranks.run(work, {}) == [[0, 10, 20]] * 3
        assert ranks.run(work, {1: ValueError}) == [("ValueError", "rank 1: because 1")] * 3
        assert ranks.run(work, {2: KeyError, 1: OSError}) == [
            ("OSError", "rank 1 (and 1 more ranks): because 1")] * 3
        assert ranks.run(work, {0: ZeroDivisionError}) == [
            ("OSError", "rank 0: ZeroDivisionError: because 0")] * 3


def test_one_rank_alone_raises_its_own_error_as_the_cause():
    assert together(alone(), lambda: 3) == [3]
    with pytest.raises(ValueError, match="rank 0: no") as caught:
        together(alone(), lambda: int("x") if False else (_ for _ in ()).throw(ValueError("no")))
    assert isinstance(caught.value.__cause__, ValueError)
