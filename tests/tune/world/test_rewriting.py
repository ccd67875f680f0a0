from random import Random

import pytest

from llama_from_scratch.tune.world import rewriting
from llama_from_scratch.tune.world.scenes import KINDS
from llama_from_scratch.tune.world.words import NAMES, THINGS


def test_no_typo_turns_a_word_of_the_world_into_another():
    words = {word.lower() for word in (*NAMES, *THINGS)}
    for word in sorted(words):
        for seed in range(200):
            typo = rewriting.with_typo(Random(seed), word)
            assert typo == word or typo not in words


def test_a_typo_keeps_the_first_letter_and_short_words():
    assert rewriting.with_typo(Random(0), "the") == "the"
    for seed in range(100):
        typo = rewriting.with_typo(Random(seed), "garden")
        assert typo[0] == "g" and len(typo) in (5, 6, 7)


def test_kinds_of_questions_about_a_subject_are_held_out():
    seen = {split: {(found.kind, found.subject) for seed in range(2000)
                    for found in [rewriting.rewriting(Random(seed), split)]}
            for split in ("train", "test")}
    assert not seen["train"] & seen["test"]
    everything = {(kind, word) for kind in KINDS
                  for word in (THINGS if kind == "color" else NAMES)}
    assert seen["train"] | seen["test"] == everything
    assert {subject for _, subject in seen["train"]} > {*NAMES}


def test_the_answer_is_the_question_in_its_usual_form():
    for seed in range(50):
        found = rewriting.rewriting(Random(seed), "train")
        assert found.user.startswith("Rewrite: ") and found.subject in found.answer
        assert found.answer[0].isupper() and found.answer.endswith("?")
        assert not found.is_name_intact or found.subject.lower() in found.user


def test_unknown_splits_are_refused():
    with pytest.raises(ValueError, match="got 'dev'"):
        rewriting.rewriting(Random(0), "dev")
