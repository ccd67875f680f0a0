import pytest

from llama_from_scratch.tune.agents.variables import Variables


@pytest.fixture
def variables():
    made = Variables()
    assert [made.put(value) for value in ("$2 and $1", 7, {"a": [1]})] == ["$1", "$2", "$3"]
    return made


@pytest.mark.parametrize(("given", "filled"), [
    ("$2", 7), ("$1", "$2 and $1"), ("$3", {"a": [1]}), ("$2!", "7!"), ("$2$2", "77"),
    ("The note says: $1", "The note says: $2 and $1"), ("$4", "$4"), ("$0", "$0"), ("$", "$"),
    ("$22", "$22"), (["$2", {"a": "$2", "$2": 1}], [7, {"a": 7, "$2": 1}]), (3, 3), (None, None),
])
def test_names_are_replaced_once_and_a_name_alone_keeps_the_type(variables, given, filled):
    assert variables.fill(given) == filled


def test_which_values_are_used_is_found_at_every_depth(variables):
    assert variables.used_in({"a": ["x $3", {"b": "$1$1"}], "$2": 3}) == (1, 3)
    assert variables.used_in("$4 and $0") == () == variables.used_in(3)


def test_a_text_is_filled_as_text(variables):
    assert variables.fill_text("$2") == "7" and variables.fill_text("$3") == "{'a': [1]}"
