"""What `equal` and `changed` print and refuse."""

import math

import numpy as np
import pytest
import torch
from failing_checks import message, x_BHTS

from llama_from_scratch.lessons import check


@pytest.mark.parametrize(("mine", "expected"), [
    (x_BHTS * (1 + 1e-6), x_BHTS), (x_BHTS.clone().requires_grad_(), x_BHTS),
    (x_BHTS.double(), x_BHTS), (3, 3),
    (0.1 + 0.2, 0.3),
    (torch.tensor(2.5), 2.5), (2.5, torch.tensor(2.5)), (np.float32(2.5), 2.5), (True, True),
    ("é", "é"),
    (b"a", b"a"),
    (None, None),     ([1, [2.0, "x"]], (1, [2.0, "x"])),
    ({"a": x_BHTS, "b": [1]}, {"b": [1], "a": x_BHTS}), ({1, 2}, {2, 1}),
    (math.nan, math.nan),
    (torch.tensor([1, -math.inf, math.nan]), torch.tensor([1, -math.inf, math.nan])),
    (np.arange(3), np.arange(3)),
    (torch.zeros(0, 3), torch.zeros(0, 3)),
])
def test_equal_values_print_one_line_and_return_nothing(mine, expected, capsys):
    assert check.equal(mine, expected, name="mine") is None
    shown = capsys.readouterr().out
    assert shown.startswith("✓ mine is right") and shown.count("\n") == 1


def test_the_line_names_the_shape_and_nothing_that_varies(capsys):
    check.equal(x_BHTS * (1 + 1e-6), x_BHTS, name="scores_BHTS")
    assert capsys.readouterr().out == "✓ scores_BHTS is right, shape (2, 4, 5, 5)\n"


def test_tolerances_are_obeyed():
    check.equal(x_BHTS + 0.01, x_BHTS, atol=0.02)
    check.equal([1.1], [1.0], rtol=0.2)
    message(check.equal, x_BHTS * (1 + 1e-6), x_BHTS, rtol=1e-8, atol=0.0)
    with pytest.raises(ValueError, match="must be a finite number, 0 or above; got rtol=-1"):
        check.equal(1.0, 1.0, rtol=-1)
    with pytest.raises(ValueError, match="no values to compare"):
        check.equal(torch.zeros(3, device="meta"), torch.zeros(3))


@pytest.mark.parametrize(("mine", "baseline", "settings", "line"), [
    (2.18001, 2.31, {"name": "the final loss", "is_lower": True}, "✓ the final loss has "
                                                                  "changed: 2.31 → 2.18"),
    (3, 2, {"name": "your losses", "is_lower": False}, "✓ your losses have changed: 2 → 3"),
    ("One day", "Once", {}, "✓ your result has changed: 'Once' → 'One day'"),
    (torch.tensor(2.5), 2.0, {}, "✓ your result has changed: 2 → 2.5"),
    (torch.ones(2), torch.zeros(2), {}, "✓ your result has changed: a float32 tensor of shape (2,) "
                                        "→ a float32 tensor of shape (2,)"),
    (math.nan, 2.0, {}, "✓ your result has changed: 2 → nan"),
])
def test_a_changed_result_prints_one_line_with_both(mine, baseline, settings, line, capsys):
    check.changed(mine, baseline, **settings)
    assert capsys.readouterr().out == line + "\n"


@pytest.mark.parametrize(("mine", "baseline", "settings", "words"), [
    (2.31, 2.31, {}, "your result has not changed: 2.31 before, 2.31 now. Did you make the"),
    (2.31, 2.3101, {"rtol": 0.01}, "not changed"),
    (torch.ones(3), torch.ones(3), {}, "not changed"),
    (2.4, 2.31, {"is_lower": True}, "went up: 2.31 before, 2.4 now. It should be lower"),
    (2.2, 2.31, {"is_lower": False}, "went down: 2.31 before, 2.2 now. It should be higher"),
    (math.nan, 2.31, {"is_lower": True}, "is not a number: 2.31 before"),
    (None, 2.31, {}, "yours is None. Did you forget "
                     "`return`?"), ([1.0], 2.31, {}, "must be a number"),
])
def test_a_result_that_did_not_change_as_asked_is_told_in_words(mine, baseline, settings, words):
    assert words in message(check.changed, mine, baseline, **settings)


def test_only_numbers_can_be_lower():
    with pytest.raises(ValueError, match=r"only a number.*got 'b'\. Leave `is_lower` out"):
        check.changed("b", "a", is_lower=True)


def test_numbers_prints_one_table_for_every_machine(capsys):
    rows = {"loss": (2.31, 2.3, 0.01), "parameters": (1_054_080, 1_054_080, 0)}
    check.numbers(rows)
    assert capsys.readouterr().out == (
        "✓ loss              2.3  ± 1 %\n✓ parameters  1,054,080  exactly\n")
    said = message(check.numbers, rows | {"loss": (2.4, 2.3, 0.01)})
    assert said.startswith("1 of 2 numbers are not as expected\n✗ loss ") and "yours: 2.4" in said
    with pytest.raises(ValueError, match="got none"):
        check.numbers({})
