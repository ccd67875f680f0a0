from random import Random

from llama_from_scratch import bundled
from llama_from_scratch.tune.world.describing import describing
from llama_from_scratch.tune.world.instructions import instruct
from llama_from_scratch.tune.world.leaks import held_out_pairs, leaks


def test_a_leak_is_found_in_any_case():
    assert leaks(["Tom has the kite. tom has the BALL.", "Mia has the ball."]) == [("Tom", "ball")]


def test_there_are_77_pairs():
    assert len(held_out_pairs()) == len(set(held_out_pairs())) == 77


def test_training_texts_have_no_leak_and_tests_do():
    rng = Random(0)
    trained = [*(instruct(rng, "train", n_people=2) for _ in range(3000)),
               *(describing(rng, "train") for _ in range(3000))]
    assert not leaks(text for each in trained for text in (each.user, each.answer))
    assert len(leaks(instruct(rng, "test").user for _ in range(100))) == 100


def test_the_stories_have_no_leak():
    assert not leaks([bundled.path("stories.txt").read_text(encoding="ascii")])
