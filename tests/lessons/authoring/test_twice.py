"""A cell that shows something else when it is run again is found.

That the chapters have none is shown with their exercises, in test_proof.
"""

import pytest
from tiny_notebooks import PICTURE, RAISES, cell, write

from llama_from_scratch.lessons.authoring.twice import repeat

START = cell("import random, itertools, sys\nbox, numbers = [0], itertools.count()")


@pytest.mark.parametrize(("source", "words"), [
    ("box.append(1)\nprint(box)", "'[0, 1]', then '[0, 1, 1]'"),
    ("print(f'loss {0.5 + next(numbers):.3f}')", "'loss 0.500', then 'loss 1.500'"),
    ("next(numbers)", "'0', then '1'"),
    ("print(box.pop())", "then 'IndexError: pop from empty list'"),
    ("assert box.pop() == 0", "0 outputs, then 1; the last is 'IndexError"),
    ("for _ in range(1 + next(numbers)):\n    display(box)", "1 outputs, then 2"),
])
def test_cell_with_a_memory_is_found(tmp_path, source, words):
    problems = repeat(write(tmp_path / "x.ipynb", START, cell("# Words"), cell(source)))
    assert problems[0].startswith("cell 3 shows something else when it is run again: ")
    assert words in problems[0] and len(problems) == 1


def test_cell_that_spoils_the_next_ones_is_found(tmp_path):
    problems = repeat(write(tmp_path / "x.ipynb", START, cell("box.append(1)"),
                            cell("assert len(box) == 2")))
    assert "does not run to its end if every cell is run twice" in problems[0]


def test_another_picture_is_found_and_the_same_one_is_not(tmp_path):
    other = PICTURE.replace('fill="navy"', 'fill=("navy", "red")[next(numbers) % 2]')
    path = write(tmp_path / "x.ipynb", START, cell(PICTURE), cell(other))
    [problem] = repeat(path)
    assert problem.startswith("cell 3")


def test_what_is_the_same_again_or_not_compared_is_no_problem(tmp_path):
    assert repeat(write(
        tmp_path / "x.ipynb", START, cell("box = [1]\nprint(box, 0.1 + 0.2)"),
        cell(RAISES, tags=["raises-exception"]),
        cell("print(next(numbers))", tags=["nbval-ignore-output"]),
        cell("print(next(numbers), file=sys.stderr)"),
        cell("print(f'{0.1 + 1e-9 * next(numbers):.12f}')"))) == []
