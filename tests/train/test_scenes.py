import itertools
import random
import re
from collections import Counter

import numpy as np
import pytest

from llama_from_scratch.train import scenes
from llama_from_scratch.train.questions import NUMBERS, QUARTERS, UNKNOWN, examples
from llama_from_scratch.train.scenes import COLORS, HELD_OUT, PAIRS, SEEN, SHAPES, Scenes, Thing


def some(split, n=250, seed=0, **more):
    return list(itertools.islice(examples(Scenes(), n_questions=3, split=split,
                                          pick=random.Random(seed), **more), n))


def asked(split, **more):
    return [(example.picture, q) for example in some(split, **more) for q in example.questions]


def answer_from_caption(caption, question):
    """The answer, found by another way: only from the words of the caption."""
    told = [tuple(words) for words in re.findall(r"(top|bottom) (left|right) (\w+) (\w+)", caption)]
    rules = {
        r"How many shapes\?": lambda: NUMBERS[len(told)],
        r"How many are (\w+)\?": lambda color: NUMBERS[sum(c == color for *_, c, _ in told)],
        r"What color is the (\w+)\?": lambda shape: only(c for *_, c, s in told if s == shape),
        r"What is (\w+)\?": lambda color: only(s for *_, c, s in told if c == color),
        r"Where is the (\w+) (\w+)\?": lambda *pair: " ".join(place_of(pair, told)),
        r"What is (top|bottom) (left|right)\?": lambda *place: only(
            [f"{c} {s}" for *at, c, s in told if (*at,) == place] or ["nothing"]),
        r"Is there a (\w+) (\w+)\?": lambda *pair: yes(pair in [its[2:] for its in told]),
        r"Is the (\w+) (\w+) left of the (\w+) (\w+)\?":
            lambda c, s, *other: compared((c, s), (*other,), told=told),
    }
    return only(rule(*match.groups()) for pattern, rule in rules.items()
                if (match := re.fullmatch(pattern, question)))


def place_of(pair, told):
    return only(its[:2] for its in told if its[2:] == pair)


def compared(pair, other, *, told):
    """Both places in words, and then whether the first is left of the second."""
    places = [place_of(each, told) for each in (pair, other)]
    sides = [side for _, side in places]
    assert set(sides) == {"left", "right"}, "both are in the same column"
    said = ", ".join(" ".join((*each, *at)) for each, at in zip((pair, other), places, strict=True))
    return f"{said}: {yes(sides == ['left', 'right'])}"


def only(found):
    (one,) = found
    return one


def yes(claim):
    return "yes" if claim else "no"


@pytest.mark.parametrize("split", ["train", "test", "combinations", "words"])
def test_every_answer_follows_from_the_caption(split):
    for scene, question in asked(split):
        assert question.answer == answer_from_caption(scene.caption, question.text)


def test_no_training_scene_or_question_shows_or_names_a_held_out_pair():
    held_out = [f"{color} {shape}" for color, shape in HELD_OUT]
    for split in ("train", "test"):
        for scene, question in asked(split, n=600):
            words = f"{scene.caption} {question.text} {question.answer}"
            assert not any(pair in words for pair in held_out)
    assert set(SEEN) | set(HELD_OUT) == set(PAIRS) and not set(SEEN) & set(HELD_OUT)
    assert {color for color, _ in SEEN} == set(COLORS)
    assert {shape for _, shape in SEEN} == set(SHAPES)


def test_every_question_of_the_combinations_is_about_the_held_out_thing():
    for scene, question in asked("combinations"):
        assert scene.subject in scene.things and scene.subject.pair in HELD_OUT
        words = f"{question.text} {question.answer}"
        if (question.kind, question.answer) == ("exists", "no"):
            assert any(f"{color} {shape}" in words for color, shape in HELD_OUT)
        else:
            assert scene.subject.color in words or scene.subject.shape in words
    assert "count" not in Scenes().kinds("combinations")


def test_no_scene_is_in_training_and_in_the_test_even_with_one_seed():
    train, test = ({example.picture.pixels.tobytes() for example in some(split, n=600, seed=3)}
                   for split in ("train", "test"))
    assert len(train) == len(test) == 600 and not train & test


@pytest.mark.parametrize("split", ["train", "test", "combinations"])
def test_half_of_the_answers_are_yes(split):
    for kind in ("exists", "relation"):
        answers = Counter(q.answer.split()[-1] for _, q in asked(split, kinds=[kind]))
        # 750 fair draws are within 0.08 of one half in all but one of 80,000 cases.
        assert abs(answers["yes"] / answers.total() - 0.5) < 0.08, kind


def test_more_than_half_of_the_noes_are_near_misses():
    noes = [(scene, q) for scene, q in asked("train", kinds=["exists"]) if q.answer == "no"]
    near = 0
    for scene, question in noes:
        color, shape = re.findall(r"a (\w+) (\w+)\?", question.text)[0]
        near += bool(scene.having(color=color) or scene.having(shape=shape))
    assert len(noes) / 2 < near < len(noes)


def test_only_the_words_name_held_out_pairs_that_are_not_there():
    named = {split: {q.text for _, q in asked(split, kinds=["exists"]) if q.answer == "no"}
             for split in ("train", "words")}
    held_out = {f"Is there a {color} {shape}?" for color, shape in HELD_OUT}
    assert held_out <= named["words"] and not held_out & named["train"]


def test_each_thing_is_painted_in_its_quarter_with_its_color():
    pick = random.Random(0)
    for color, shape in PAIRS:
        quarter = pick.randrange(4)
        pixels = scenes.painted([Thing(quarter=quarter, color=color, shape=shape)], pick)
        rows, columns = np.nonzero(pixels.max(-1) > 60)
        at = [QUARTERS[2 * (row // 14) + column // 14]
              for row, column in zip(rows, columns, strict=True)]
        assert set(at) == {QUARTERS[quarter]}
        brightest = pixels[rows, columns].max(0) / 255
        nearest = min(COLORS, key=lambda name: abs(np.array(COLORS[name]) - brightest).sum())
        assert nearest == color


def test_shapes_cover_what_their_formulas_cover():
    share = {shape: scenes.cover(shape, 40).mean() for shape in SHAPES}
    assert share["circle"] == pytest.approx(np.pi / 4, abs=0.01)
    assert share["square"] == pytest.approx(0.88**2, abs=0.01)
    assert share["triangle"] == pytest.approx(0.5, abs=0.02)
    assert share["cross"] == pytest.approx(1 - 0.67**2, abs=0.02)


def test_classes_say_what_is_in_each_quarter():
    things = (Thing(quarter=1, color="blue", shape="cross"),
              Thing(quarter=2, color=None, shape="circle"))
    scene = scenes.Scene(pixels=scenes.painted(things, random.Random(0)), things=things,
                         may_name=SEEN)
    nothing = [len(COLORS), len(SHAPES)]
    assert scene.classes.tolist() == [[*nothing, 0], [2, 3, 1], [UNKNOWN, 0, 2], [*nothing, 3]]
    assert Scenes().n_classes == (len(COLORS) + 1, len(SHAPES) + 1, len(QUARTERS))


def test_hues_have_any_color_and_no_name():
    drawn = [Scenes().draw(random.Random(i), split="hues") for i in range(50)]
    assert {thing.color for scene in drawn for thing in scene.things} == {None}
    assert len({scene.pixels.max((0, 1)).tobytes() for scene in drawn}) == 50


def test_a_scene_of_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="train, .*, words; got 'validation'"):
        Scenes().draw(random.Random(0), split="validation")
