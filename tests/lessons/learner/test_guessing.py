"""Guesses are read as people type them, and compared fairly."""

import math

import pytest

from llama_from_scratch.lessons.learner.guessing import judge, parse, shown


@pytest.mark.parametrize(("text", "value"), [
    ("12", 12), (" 1,000 ", 1000), ("1_000", 1000), ("2^10", 1024), ("2**10", 1024), ("3/4", 0.75),
    ("25 %", 0.25), ("25%", 0.25), ("sqrt(128)", math.sqrt(128)), ("ln(512)", math.log(512)),
    ("1e6", 1e6), ("-3.5", -3.5), ("2 × 32 * 128", 8192), ("+7", 7), ("log2(8)", 3),
])
def test_guess_is_read_as_typed(text, value):
    assert parse(text) == pytest.approx(value)


@pytest.mark.parametrize("text", [
    "", "many", "1/0", "2 apples", "__import__('os')", "9**9**9", "(1).real", "True", "[1]",
    "1" * 200, "nan", "exp(10000)", "sqrt(-1)", "sqrt(2, 3)", "1; 2", "10^1001", "lambda: 1",
])
def test_what_is_no_number_is_refused_in_words(text):
    with pytest.raises(ValueError, match="a guess must be a number; got .* as 1,000"):
        parse(text)


@pytest.mark.parametrize(("guess", "answer", "is_right", "words"), [
    (128, 128, True, "was right"), (120, 128, True, "was right"),
    (100, 128, False, "28% too small"),
    (11.3, 128, False, "11 times too small"), (512, 128, False, "4.0 times too large"),
    (-1, 128, False, "off"), (0, 0, True, "right"), (1, 0, False, "off"),
])
def test_numbers_are_compared_by_their_ratio(guess, answer, is_right, words):
    verdict = judge(guess, answer, within=0.1)
    assert verdict.is_right == is_right and words in verdict.words
    assert (verdict.surprise == 0) == is_right


def test_the_further_off_the_more_surprising():
    surprises = [judge(guess, 100, within=0.1).surprise for guess in (100, 150, 300, 1e6, 1)]
    assert surprises[0] == 0 and sorted(surprises[:4]) == surprises[:4] and surprises[4] > 3


def test_choices_and_curves_are_compared():
    assert judge("a", "a", within=0.1).is_right
    assert judge("b", "a", within=0.1).words == "You guessed: b."
    assert judge([1, 2, 4], [1, 2, 4.1], within=0.1).is_right
    off = judge([1, 2, 2], [1, 2, 4], within=0.1)
    assert not off.is_right and "50% of the highest" in off.words


def test_values_are_shown_as_the_course_writes_them():
    assert [shown(x) for x in (131_072, 0.12345, 2.0, "all", [1, 0.5], 6.24e7)] == [
        "131,072", "0.123", "2", "all", "1, 0.5", "62,400,000"]
