from random import Random

import pytest

from llama_from_scratch.tune.world import scenes
from llama_from_scratch.tune.world.words import is_held_out


@pytest.mark.parametrize("n_people", [1, 3])
def test_people_of_a_scene_have_nothing_in_common(n_people):
    for seed in range(200):
        people = scenes.scene(Random(seed), "train", n_people=n_people)
        for field in ("name", "thing", "color", "place", "taste"):
            assert len({getattr(person, field) for person in people}) == n_people


def test_training_never_shows_a_held_out_pair_and_a_test_asks_about_one():
    for seed in range(500):
        for person in scenes.scene(Random(seed), "train", n_people=3):
            assert not is_held_out(person.name, person.thing)
        first = scenes.scene(Random(seed), "test", n_people=3)[0]
        assert is_held_out(first.name, first.thing)


def test_the_answer_is_a_sentence_of_the_prompt():
    for seed in range(100):
        rng = Random(seed)
        people = scenes.scene(rng, "train", n_people=rng.choice((1, 2, 3)))
        for kind in scenes.KINDS:
            shown = scenes.facts_shown(rng, kind, people)
            assert scenes.fact(kind, people[0]) in shown
            assert all(scenes.fact(kind, person) in shown for person in people)


def test_three_words_are_three_and_have_the_key():
    [person] = scenes.scene(Random(0), "train")
    for kind in scenes.KINDS:
        answer = scenes.in_three_words(kind, person)
        assert len(answer.split()) == 3 and person.key(kind) in answer


def test_the_same_seed_gives_the_same_scene():
    assert scenes.scene(Random(3), "test") == scenes.scene(Random(3), "test")
