"""The legend is kept: each capital letter in a shape of the library is one of its letters."""

import ast
import re
from pathlib import Path

import jaxtyping

from llama_from_scratch.shapes import LEGEND

PACKAGE = Path(__file__).resolve().parents[1] / "llama_from_scratch"


def letters(source):
    """The capital letters in the shapes of a source text: {"B", "T"} for Float[Tensor, "B T+1"]."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Subscript(value=ast.Name(id=kind), slice=ast.Tuple(
                    elts=[_, ast.Constant(value=str(shape))])) if hasattr(jaxtyping, kind):
                found |= set(re.findall(r"\b[A-Z]\w*", shape))
    return found


def test_every_letter_of_a_shape_is_in_the_legend():
    used = {path: letters(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}
    assert {path: found - LEGEND.keys() for path, found in used.items()
            if found - LEGEND.keys()} == {}
    assert set("BTSDHGKRFV") <= set().union(*used.values()), "the library has no shapes?"


def test_the_letters_of_shapes_are_found():
    source = ('def f(x: Float[Tensor, "#B *T 2 n D+1"]) -> Int[Tensor, "X"]:\n'
              '    y: dict["Y", "Z"] = {}')
    assert letters(source) == {"B", "T", "D", "X"}


def test_a_letter_is_one_capital_with_one_meaning():
    assert all(re.fullmatch("[A-Z]", letter) for letter in LEGEND)
    assert len(set(LEGEND.values())) == len(LEGEND)
