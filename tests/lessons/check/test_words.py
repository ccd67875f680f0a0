"""Values and numbers in words."""

import pytest
from failing_checks import message

from llama_from_scratch.lessons import check


@pytest.mark.parametrize(("name", "verb"), [
    ("your losses", "are"), ("the sizes of the layer", "are"), ("your ids", "are"),
    ("the list of losses", "is"),
    ("the weight after 20 steps", "is"), ("your loss", "is"), ("the axis", "is"),
    ("the bias", "is"), ("scores_BHTS", "is"),
])
def test_the_line_agrees_in_number_with_the_name(name, verb, capsys):
    check.equal([1, 2], [1, 2], name=name)
    assert capsys.readouterr().out == f"✓ {name} {verb} right\n"
    has = {"is": "has", "are": "have"}[verb]
    assert message(check.equal, [1], [1, 2], name=name).startswith(f"{name} {has} 1 entry")
    assert message(check.equal, "a", "b", name=name).startswith(f"{name} {verb} not what")
