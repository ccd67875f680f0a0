import pytest

from llama_from_scratch.tune.world.words import NAMES, THINGS, check_split, is_held_out


def test_one_pair_in_five_is_held_out_and_every_word_is_trained():
    held_out = {(name, thing) for name in NAMES for thing in THINGS if is_held_out(name, thing)}
    assert 0.18 < len(held_out) / (len(NAMES) * len(THINGS)) < 0.22
    for name in NAMES:
        assert 0 < sum((name, thing) in held_out for thing in THINGS) < len(THINGS)
    for thing in THINGS:
        assert 0 < sum((name, thing) in held_out for name in NAMES) < len(NAMES)


def test_the_rule_needs_both_words():
    """A rule on the name alone would hold out all things of a name, or none."""
    assert is_held_out("Tom", "ball") and not is_held_out("Tom", "kite")
    assert not is_held_out("Mia", "ball")


def test_words_of_another_world_and_other_splits_are_refused():
    with pytest.raises(ValueError, match="got 'Bob'"):
        is_held_out("Bob", "ball")
    with pytest.raises(ValueError, match='"train" or "test"; got \'valid\''):
        check_split("valid")
