import itertools
import random
from collections import Counter

import numpy as np
import pytest

from llama_from_scratch.train.questions import PictureQuestion, examples, known_kinds
from llama_from_scratch.train.scenes import Scenes


def some(n, **changed):
    settings = dict(n_questions=3, split="train", pick=random.Random(0)) | changed
    return list(itertools.islice(examples(Scenes(), **settings), n))


def test_each_kind_is_asked_equally_often_although_scenes_refuse_some():
    kinds = Counter(q.kind for example in some(400, n_questions=2) for q in example.questions)
    assert set(kinds) == set(Scenes().kinds("train")) and set(kinds.values()) == {100}


def test_examples_depend_on_the_generator_alone():
    for one, same, other in zip(some(20), some(20), some(20, pick=random.Random(1)), strict=True):
        assert one.questions == same.questions
        assert (one.picture.pixels == same.picture.pixels).all()
        assert (one.picture.pixels != other.picture.pixels).any()


def test_only_the_kinds_that_were_asked_for_come():
    kinds = {q.kind for example in some(20, kinds=["where"]) for q in example.questions}
    assert kinds == {"where"}


def test_unknown_splits_and_kinds_are_refused_and_the_known_ones_named():
    with pytest.raises(ValueError, match="hues, words; got 'tests'. Did you mean 'test'"):
        known_kinds(Scenes(), "tests")
    with pytest.raises(ValueError, match="are count, .*; got count, sizes"):
        some(1, kinds=["count", "sizes"])
    for split, kinds in (("train", []), ("hues", None)):
        with pytest.raises(ValueError, match="got none"):
            some(1, split=split, kinds=kinds)


def test_a_picture_is_drawn_again_until_it_can_be_asked():
    class Seen:
        caption, classes = "", np.zeros((4, 1), int)

        def __init__(self, share):
            self.pixels = np.full((28, 28, 3), 255 * share).astype(np.uint8)

    class Patience:
        name, splits, n_classes = "patience", ("train",), (1,)

        def kinds(self, split):
            return ("any",)

        def draw(self, pick, *, split):
            return Seen(pick.random())

        def ask(self, picture, kind, *, pick):
            if picture.pixels.max() > 229:
                return PictureQuestion(kind=kind, text="", answer="")

    drawn = examples(Patience(), n_questions=2, split="train", pick=random.Random(0))
    assert all(example.picture.pixels.max() > 229 for example in itertools.islice(drawn, 20))
