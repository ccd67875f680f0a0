from dataclasses import replace
from random import Random

import pytest

from llama_from_scratch.tune.world import instructions
from llama_from_scratch.tune.world.checking import obeys
from llama_from_scratch.tune.world.scenes import KINDS, Person, fact, question_about

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


def test_a_second_question_asks_for_another_fact_that_was_shown():
    rng = Random(2)
    for _ in range(500):
        task = instructions.instruct(rng, "train")
        then = instructions.follow_up(rng, task)
        assert then.kind != task.kind and then.person == task.person
        assert fact(then.kind, then.person) in task.user
        assert then.user.startswith(question_about(then.kind, then.person))
        assert not any(fact(kind, then.person) in then.user for kind in KINDS)
        assert obeys(then.answer, then)


def test_a_second_question_needs_a_fact_to_ask_for():
    task = instructions.instruct(Random(0), "train", instructions.no_instruction)
    with pytest.raises(ValueError, match="which shows one fact about"):
        instructions.follow_up(Random(0), replace(task, user=fact(task.kind, task.person)))
