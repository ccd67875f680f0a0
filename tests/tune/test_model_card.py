"""A card says what was measured, and is refused without it."""

import pytest
import torch

from llama_from_scratch import bundled, load
from llama_from_scratch.tune.evals import Mean, Share
from llama_from_scratch.tune.model_card import card


@pytest.fixture(scope="module")
def told():
    model, tokenizer = load(bundled.path("world/assistant"), dtype=torch.float32)
    return dict(model=model, tokenizer=tokenizer, name="Small assistant", read=["Stories."],
                uses=["Lessons."], limits=["It knows 24 names."], measured={
                    "one instruction": Share(n_right=156, n=160),
                    "score | of 3": Mean(value=1.234, error=0.056, n=1200)})


def test_every_figure_is_in_the_card(told):
    found = card(**told)
    lines = found.text.splitlines()
    assert lines[0] == "# Small assistant"
    assert "| parameters | 627,552 |" in lines and "| vocabulary | 1,152 tokens |" in lines
    assert "| one instruction | 98 % | 1 % | 160 |" in lines
    assert "| score \\| of 3 | 1.23 | 0.06 | 1,200 |" in lines
    assert lines[-1] == "- It knows 24 names." and "- Stories." in lines and "- Lessons." in lines
    assert found.text.endswith("\n")


@pytest.mark.parametrize(("part", "empty"), [("read", []), ("uses", []), ("limits", []),
                                             ("measured", {})])
def test_a_card_without_a_part_is_refused(told, part, empty):
    with pytest.raises(ValueError, match=f"has {part}; got none"):
        card(**told | {part: empty})


@pytest.mark.parametrize("broken", ["", "two\nlines"])
def test_a_broken_line_is_refused(told, broken):
    with pytest.raises(ValueError, match="one line, with something in it"):
        card(**told | {"limits": [broken]})
