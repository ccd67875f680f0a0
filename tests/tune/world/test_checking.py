from random import Random

import pytest

from llama_from_scratch.tune.world import checking, instructions
from llama_from_scratch.tune.world.scenes import Person

TOM = Person(name="Tom", thing="ball", color="red", place="farm", taste="tea")


def task(*told):
    answer = instructions.obeying("where", TOM, told, first_mark="moon", last_mark="star")
    return instructions.Request(user="", answer=answer, kind="where", person=TOM, instructions=told,
                             first_mark="moon", last_mark="star")


@pytest.mark.parametrize("told, text, wrong", [
    ((), "Tom is by the lake.", "right"),
    ((), "Tom is at the farm and the lake.", "right"),
    ((), "", "right"),
    ((), "Tom is at the farmhouse.", "right"),
    (("one",), "the farm", "one"),
    (("three",), "Tom is at the farm.", "three"),
    (("three",), "farm", "three"),
    (("upper",), "TOM is at the farm.", "upper"),
    (("lower",), "Tom is at the farm.", "lower"),
    (("quote",), "Tom is at the farm.", "quote"),
    (("quote",), '"Tom is at the farm.', "quote"),
    (("quote",), '"Tom" is at the "farm"', "quote"),
    (("twice",), "Tom is at the farm.", "twice"),
    (("twice",), "Tom is at the farm. He is at the farm.", "twice"),
    (("begin",), "Tom is at the farm.", "begin"),
    (("begin",), "Star, Tom is at the farm.", "begin"),
    (("end",), "Tom is at the farm.", "end"),
    (("end",), "Tom is at the farm, star, yes.", "end"),
])
def test_what_is_wrong_is_named(told, text, wrong):
    verdicts = checking.check(text, task(*told))
    assert [name for name, verdict in verdicts.items() if not verdict] == [wrong]


@pytest.mark.parametrize("text", ["", "...", "12", '""'])
def test_a_text_without_letters_has_no_case(text):
    assert not checking.check(text, task("upper"))["upper"]
    assert not checking.check(text, task("lower"))["lower"]


def test_any_right_wording_passes():
    assert checking.obeys("It is the farm where Tom is.", task())
    assert checking.obeys("Farm!", task("one"))


def test_each_checker_rejects_perturbed_reference_answers():
    """Perturbations that break a form: other case, a word more, a word less, no quotes, ..."""
    rng = Random(4)
    perturb = {
        "one": lambda text: f"{text} {text} yes", "three": lambda text: f"It {text}",
        "upper": str.lower, "lower": str.upper, "quote": lambda text: text[1:],
        "twice": lambda text: f"{text} yes", "begin": lambda text: text.partition(", ")[2],
        "end": lambda text: text.rpartition(", ")[0] + ".",
    }  # fmt: skip
    for name, change in perturb.items():
        for _ in range(50):
            made = instructions.instruct(rng, "test", lambda rng, name=name: (name,))
            # The answer may be the mark itself: "Tom likes milk." ends with "milk", but has no key.
            assert not checking.obeys(change(made.answer), made), (name, made)
