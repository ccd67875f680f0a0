import itertools
import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from llama_from_scratch.train import digits
from llama_from_scratch.train.digits import N_TEST, Digits
from llama_from_scratch.train.questions import NUMBERS, QUARTERS, examples


def some(split, n=400, **more):
    return list(itertools.islice(examples(Digits(), n_questions=3, split=split,
                                          pick=random.Random(0), **more), n))


def answer_from_caption(caption, question):
    """The answer, found by another way: only from the words of the caption."""
    _, left, _, right = caption.strip(".").replace(",", "").split()
    value = {word: NUMBERS.index(word) for word in (left, right)}
    if question.startswith("Is the"):
        _, _, first, *_ = question.split()
        return f"left {left}, right {right}: {'yes' if first == left else 'no'}"
    return {"Which digits?": f"{left} {right}", "Which digit is left?": left,
            "Which digit is right?": right, "Which is larger?": max(value, key=value.get),
            "What is the sum?": NUMBERS[NUMBERS.index(left) + NUMBERS.index(right)]}[question]


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_answer_follows_from_the_caption(split):
    for example in some(split):
        for question in example.questions:
            expected = answer_from_caption(example.picture.caption, question.text)
            assert question.answer == expected


def test_the_last_writers_are_only_in_the_test():
    n = len(digits.handwritten()[1])
    used = {split: {digit.index for example in some(split)
                    for digit in (example.picture.left, example.picture.right)}
            for split in ("train", "test")}
    assert n == 1797 and max(used["train"]) < n - N_TEST <= min(used["test"])
    assert len(used["train"]) > 500 and len(used["test"]) > 250


def test_the_digits_are_scikit_learns_in_their_own_order():
    from sklearn.datasets import load_digits
    images, values = digits.handwritten()
    found = load_digits()
    assert (values == found.target).all() and images.shape == (1797, 12, 12)
    assert 0 <= images.min() and images.max() <= 1
    # Enlarging keeps the ink: nearly the same share of the area is covered.
    np.testing.assert_allclose(images.mean((1, 2)), found.images.mean((1, 2)) / 16, atol=0.05)


def test_enlarging_is_bilinear_as_in_torch():
    import torch
    small = np.random.default_rng(0).random((8, 8)).astype(np.float32)
    enlarge = digits._enlarging(8, 12)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(small)[None, None], size=(12, 12), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(enlarge @ small @ enlarge.T, theirs[0, 0], atol=1e-6)


def test_a_slanted_digit_leans_and_keeps_its_ink():
    ink = np.zeros((12, 12), np.float32)
    ink[:, 6] = 1
    assert (digits.slanted(ink, 0.0) == ink).all()
    places = (digits.slanted(ink, 0.25) * np.arange(12)).sum(1)
    np.testing.assert_allclose(places, 6 + 0.25 * (5.5 - np.arange(12)), atol=1e-5)
    np.testing.assert_allclose(digits.slanted(ink, -0.25).sum(1), 1, atol=1e-5)


def test_only_digits_of_training_are_slanted(monkeypatch):
    slopes = []
    monkeypatch.setattr(digits, "slanted", lambda ink, slope: slopes.append(slope) or ink)
    Digits().draw(random.Random(0), split="test")
    assert not slopes
    Digits().draw(random.Random(0), split="train")
    assert len(slopes) == 2 and 0 < max(map(abs, slopes)) <= 0.25


def test_one_digit_is_in_each_half_and_its_class_in_its_quarter():
    for example in some("train", n=50):
        picture = example.picture
        assert picture.left.quarter in (0, 2) and picture.right.quarter in (1, 3)
        expected = [10] * len(QUARTERS)
        assert picture.classes[:, 1].tolist() == [0, 1, 2, 3]
        for digit in (picture.left, picture.right):
            expected[digit.quarter] = digit.value
        assert picture.classes[:, 0].tolist() == expected
        ink = picture.pixels[..., 0].reshape(2, 14, 2, 14).max((1, 3)).flatten()
        assert [quarter for quarter in range(4) if ink[quarter] > 60] == sorted(
            [picture.left.quarter, picture.right.quarter])


def test_half_of_the_relations_are_true_and_each_kind_is_asked_equally_often():
    answers = Counter(q.answer.split()[-1] for example in some("train", kinds=["relation"])
                      for q in example.questions)
    # 1,200 fair draws are within 0.06 of one half in all but one of 30,000 cases.
    assert abs(answers["yes"] / 1200 - 0.5) < 0.06
    kinds = Counter(q.kind for example in some("train") for q in example.questions)
    assert set(kinds) == set(Digits().kinds("train")) and set(kinds.values()) == {240}


def test_scikit_learn_is_loaded_only_when_a_digit_is_drawn():
    code = ("import sys, random\nfrom llama_from_scratch.train.digits import Digits\n"
            "task = Digits()\nprint('sklearn' in sys.modules)\n"
            "task.draw(random.Random(0), split='train')\nprint('sklearn' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_a_missing_scikit_learn_is_named_with_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    digits.handwritten.cache_clear()
    with pytest.raises(ModuleNotFoundError, match="pip install scikit-learn"):
        Digits().draw(random.Random(0), split="train")


def test_a_picture_of_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split into train, test; got 'hues'"):
        Digits().draw(random.Random(0), split="hues")
