from random import Random

import pytest

from llama_from_scratch.tune.world import instructions
from llama_from_scratch.tune.world.checking import obeys
from llama_from_scratch.tune.world.scenes import Person

TOM = Person(name="Tom", thing="ball", color="red", place="farm", taste="tea")


@pytest.mark.parametrize("told, answer", [
    ((), "Tom is at the farm."),
    (("one",), "farm"),
    (("three",), "At the farm."),
    (("upper",), "TOM IS AT THE FARM."),
    (("lower",), "tom is at the farm."),
    (("quote",), '"Tom is at the farm."'),
    (("twice",), "Tom is at the farm. Tom is at the farm."),
    (("begin",), "Moon, Tom is at the farm."),
    (("end",), "Tom is at the farm, star."),
    (("twice", "end"), "Tom is at the farm. Tom is at the farm, star."),
    (("begin", "quote"), '"Moon, Tom is at the farm."'),
    (("one", "upper"), "FARM"),
])
def test_reference_answers(told, answer):
    assert instructions.obeying("where", TOM, told, first_mark="moon", last_mark="star") == answer


def test_the_checker_accepts_ten_thousand_reference_answers():
    rng = Random(0)
    choices = [(), *((name,) for name in instructions.SINGLES), *instructions.PAIRS]
    for _ in range(10_000):
        task = instructions.instruct(rng, rng.choice(("train", "test")),
                                     lambda rng: rng.choice(choices))
        assert obeys(task.answer, task), task


def test_held_out_pairs_are_pairs_and_are_not_taught():
    pairs = set(instructions.PAIRS)
    assert len(pairs) == 20
    assert set(instructions.HELD_OUT_PAIRS) < pairs and set(instructions.TAUGHT_PAIRS) < pairs
    assert not set(instructions.HELD_OUT_PAIRS) & set(instructions.TAUGHT_PAIRS)


def test_a_task_asks_for_what_it_checks():
    rng = Random(1)
    for _ in range(100):
        task = instructions.instruct(rng, "train", lambda rng: ("begin", "end"))
        assert f"Begin with the word {task.first_mark}." in task.user
        assert f"End with the word {task.last_mark}." in task.user
        assert task.first_mark != task.last_mark
