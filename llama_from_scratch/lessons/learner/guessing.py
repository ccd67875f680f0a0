"""Reads a guess as the reader types it, and compares it with the answer.

Nothing here draws or shows anything. Used by `predict`.
"""

import ast
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
              ast.Div: operator.truediv, ast.Pow: operator.pow, ast.USub: operator.neg,
              ast.UAdd: operator.pos}
_FUNCTIONS = {"sqrt": math.sqrt, "ln": math.log, "log": math.log, "log2": math.log2,
              "exp": math.exp}
_MAX_LETTERS, _MAX_EXPONENT = 100, 1000


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The result of comparing a guess with the answer."""

    is_right: bool
    surprise: float | int
    """0 for a right guess; 1 for a wrong choice or a number off by a factor of e; larger for a
    number that is further off."""
    words: str


def parse(text: str) -> float | int:
    """Returns the number that a reader typed: "1,000", "2^10", "3/4", "25 %", "sqrt(128)", "1e6".

    Raises ValueError, with a message for the reader, for anything else.
    """
    cleaned = text.strip().replace(",", "").replace("_", "").replace("^", "**").replace("×", "*")
    is_percentage = cleaned.endswith("%")
    rule = (f"a guess must be a number; got {text[:40]!r}. You can write it as 1,000 or 2^10 or "
            "3/4 or 25 % or sqrt(128)")
    try:
        if len(cleaned) > _MAX_LETTERS:
            raise ValueError
        value = _value(ast.parse(cleaned.rstrip("% "), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError):
        raise ValueError(rule) from None
    if not math.isfinite(value):
        raise ValueError(rule)
    return value / 100 if is_percentage else value


def _value(node: ast.expr) -> float | int:
    match node:
        case ast.Constant(value=bool()):
            raise ValueError
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.UnaryOp(op=op, operand=inner):
            return _OPERATORS[type(op)](_value(inner)) if type(op) in _OPERATORS else _unknown()
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            one, other = _value(left), _value(right)
            if isinstance(op, ast.Pow) and (abs(other) > _MAX_EXPONENT or abs(one) > 1e6):
                raise ValueError
            return _OPERATORS[type(op)](one, other)
        case ast.Call(func=ast.Name(id=name), args=[inner], keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](_value(inner))
    return _unknown()


def _unknown() -> float | int:
    raise ValueError


def judge(guess: Any, answer: Any, *, within: float | int) -> Judged:
    """Compares a guess with the answer: two numbers, two lists of numbers, or two texts.

    `within`: how far a number may be from the answer and still be right, as a part of the answer.
    """
    if isinstance(answer, str):
        is_right = guess == answer
        return Judged(is_right=is_right, surprise=float(not is_right),
                       words="Your guess was right." if is_right else f"You guessed: {guess}.")
    if isinstance(answer, Sequence):
        return _judge_curve(guess, answer, within=within)
    is_right = abs(guess - answer) <= within * abs(answer)
    surprise = 0.0 if is_right else _distance(guess, answer)
    words = f"Your guess of {shown(guess)} was {'right' if is_right else _how_far(guess, answer)}."
    return Judged(is_right=is_right, surprise=surprise, words=words)


def _judge_curve(
    guess: Sequence[float | int], answer: Sequence[float | int], *, within: float | int
) -> Judged:
    height = max(map(abs, answer)) or 1.0
    off = max(abs(g - a) for g, a in zip(guess, answer, strict=True)) / height
    is_right = off <= within
    words = ("Your curve was right." if is_right else
             f"Your curve is off by up to {off:.0%} of the highest value.")
    return Judged(is_right=is_right, surprise=0.0 if is_right else off, words=words)


def _distance(guess: float | int, answer: float | int) -> float | int:
    if guess * answer > 0:
        return abs(math.log(guess / answer))
    return abs(guess - answer) / (abs(answer) or 1.0)


def _how_far(guess: float | int, answer: float | int) -> str:
    if guess * answer <= 0:
        return "off"
    factor = max(guess / answer, answer / guess)
    way = "too large" if abs(guess) > abs(answer) else "too small"
    return f"{factor:,.0f} times {way}" if factor >= 9.5 else (
        f"{factor:.1f} times {way}" if factor >= 1.5 else f"{factor - 1:.0%} {way}")


def shown(value: Any) -> str:
    """Returns a guess or an answer as text: 131_072 -> "131,072", 0.12345 -> "0.123"."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return ", ".join(map(shown, value))
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.3g}"
