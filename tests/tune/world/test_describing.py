from random import Random

import pytest

from llama_from_scratch.tune.world import describing
from llama_from_scratch.tune.world.scenes import Person

TOM = Person(name="Tom", thing="ball", color="red", place="farm", taste="tea")
PERFECT = "Tom likes tea. Tom is at the farm. Tom has the ball."


@pytest.mark.parametrize("text, score", [
    (PERFECT, 3.0),
    ("Tom likes tea.", 1.0),
    ("Tom likes tea. Tom likes tea.", 0.5),
    ("Tom likes milk.", -1.0),
    ("What a nice day.", -0.5),
    (f"{PERFECT} That is all I know.", 2.5),
    ("The ball is red.", -1.0),
    ("Tom likes", -1.0),
    ("", 0.0),
])
def test_scores(text, score):
    assert describing.score(text, TOM) == score


def test_a_text_that_was_cut_off_earns_nothing():
    assert describing.score(PERFECT, TOM, is_finished=False) == describing.UNFINISHED


def test_no_longer_text_is_better_than_the_perfect_one():
    rng = Random(0)
    for _ in range(200):
        text = " ".join(describing.careless(rng, TOM) for _ in range(3))
        assert describing.score(text, TOM) <= describing.BEST


def test_the_careless_writer_is_as_careless_as_its_shares():
    """Of many sentences, 18 % are false, and all of the other kinds occur."""
    rng, kinds = Random(0), {"true": 0, "false": 0, "again": 0, "chatter": 0}
    facts = {describing.fact(kind, TOM) for kind in describing.ABOUT}
    for _ in range(4000):
        seen = set()
        for sentence in describing.sentences_of(describing.careless(rng, TOM)):
            kind = ("chatter" if sentence in describing.CHATTER else "again" if sentence in seen
                    else "true" if sentence in facts else "false")
            kinds[kind] += 1
            seen.add(sentence)
    total = sum(kinds.values())
    assert 0.16 < kinds["false"] / total < 0.2
    assert 0.5 < kinds["true"] / total < 0.65 and kinds["again"] > 0 and kinds["chatter"] > 0


def test_a_request_shows_every_fact_and_no_description():
    found = describing.describing(Random(2), "test")
    for kind in describing.ABOUT:
        assert describing.fact(kind, found.person) in found.user
    assert found.user.endswith(f"Tell me about {found.person.name}.")
