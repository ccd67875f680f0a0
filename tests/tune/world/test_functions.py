"""Functions to write: words, Python and values agree, and held-out pairs stay out."""

import itertools
from random import Random

import pytest

from llama_from_scratch.tune.code import score
from llama_from_scratch.tune.dialogs import exchange
from llama_from_scratch.tune.world import functions
from llama_from_scratch.tune.world.functions import OPERATIONS, FunctionStep


@pytest.mark.parametrize(("split", "n_steps"), [("train", 2), ("test", 2), ("test", 3),
                                                ("train", 1), ("train", 4)])
def test_the_reference_passes_every_test_in_the_sandbox(split, n_steps):
    tasks = functions.function_tasks(150, split, seed=1, n_steps=n_steps)
    scored = score([each.answer for each in tasks], [each.task for each in tasks])
    assert [each.verdict for each in scored] == ["passed"] * 150
    assert len({each.task.prompt() for each in tasks}) == 150


def test_python_agrees_with_the_values_for_every_pair_of_operations():
    for first, second in itertools.permutations(OPERATIONS, 2):
        steps = [FunctionStep(operation=name, k=3 + i if OPERATIONS[name].has_number else 0)
                 for i, name in enumerate((first, second))]
        space = {}
        exec(functions.python_of(steps), {"abs": abs, "min": min, "max": max}, space)
        assert [space["f"](x) for x in range(-30, 30)] == [
            functions.value_of(steps, x) for x in range(-30, 30)]


def test_a_task_in_words_and_in_python():
    steps = (FunctionStep(operation="multiply", k=4), FunctionStep(operation="negate", k=0))
    assert functions.words_of(steps) == "Take x, multiply by 4, then negate."
    assert functions.python_of(steps) == "def f(x): return -(x * 4)"
    assert functions.python_of(steps[::-1]) == "def f(x): return (-x) * 4"
    assert functions.value_of(steps, 10) == -40
    least = FunctionStep(operation="least", k=5)
    assert functions.python_of([steps[0], least, steps[1]]) == "def f(x): return -max(x * 4, 5)"


def test_a_fifth_of_the_pairs_is_held_out_and_every_operation_is_trained_in_both_places():
    pairs = list(itertools.permutations(OPERATIONS, 2))
    held_out = [pair for pair in pairs if functions.is_held_out_operations(*pair)]
    assert len(pairs) == 110 and 20 <= len(held_out) <= 24
    for place in (0, 1):
        trained = {pair[place] for pair in pairs if pair not in held_out}
        assert trained == set(OPERATIONS) == {pair[place] for pair in held_out}


def test_splits_keep_pairs_apart_and_leaks_are_found():
    train, test = (functions.function_tasks(200, split, seed=2) for split in ("train", "test"))
    assert functions.operations_leaked(map(functions.function_dialog, train)) == []
    leaked = functions.operations_leaked(map(functions.function_dialog, test))
    assert len(leaked) == 200
    for each, pair in zip(test, leaked, strict=True):
        assert tuple(step.operation for step in each.steps) == pair
    three = functions.function_tasks(100, "train", seed=3, n_steps=3)
    assert functions.operations_leaked(map(functions.function_dialog, three)) == []
    assert functions.operations_leaked([exchange(" Hello.", " Hello.")]) == []


def test_two_shown_tests_differ_and_hidden_ones_are_not_in_the_prompt():
    for each in functions.function_tasks(200, "train", seed=4):
        assert len({test.expected for test in each.task.visible}) == 2
        assert len(each.task.visible) == 2 and len(each.task.hidden) == 3
        assert all(each.task.shown(test) not in each.task.prompt() for test in each.task.hidden)


def test_the_same_seed_gives_the_same_tasks():
    assert functions.function_task(Random(5), "train") == functions.function_task(
        Random(5), "train")
    assert functions.function_tasks(5, "train", seed=5) != functions.function_tasks(
        5, "train", seed=6)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="one of add, .*; got 'halve'"):
        functions.is_held_out_operations("halve", "add")
    with pytest.raises(ValueError, match='"train" or "test"'):
        functions.function_task(Random(0), "valid")
    for n_steps in (0, 5):
        with pytest.raises(ValueError, match=f"1 to 4 steps; got {n_steps}"):
            functions.function_task(Random(0), "train", n_steps=n_steps)
