import dataclasses
import random

import pytest
import torch
from small_seeing import some, tokenizer

from llama_from_scratch import vision
from llama_from_scratch.train.data import IGNORE
from llama_from_scratch.train.picture_batches import all_questions, question_batches, tiles_of
from llama_from_scratch.train.scenes import Scenes
from llama_from_scratch.train.seeing import small_vision_config

IMAGE = 350


def test_tiles_are_the_ones_that_the_processor_cuts():
    pictures = [Scenes().draw(random.Random(i), split="train") for i in range(3)]
    ours = tiles_of(pictures, small_vision_config(8))
    theirs = vision.split([[picture.pixels] for picture in pictures],
                          vision.Tiling(size_px=28, max_tiles=1))
    assert torch.equal(ours.pixels, theirs.pixels)
    assert torch.equal(ours.aspect_ids, theirs.aspect_ids)


def test_pictures_of_another_size_than_the_tile_are_refused():
    pictures = [Scenes().draw(random.Random(0), split="train")]
    config = vision_config_of(tile_px=56, patch_px=14)
    with pytest.raises(ValueError, match="max_tiles=1 and tile_px=28; got .* tile_px=56"):
        tiles_of(pictures, config)


def vision_config_of(**changed):
    return dataclasses.replace(small_vision_config(8), **changed)


@pytest.mark.parametrize("image_id", [IMAGE, None])
def test_each_question_is_in_one_row_and_its_answer_is_all_that_is_learned(image_id):
    words, asked = tokenizer(), some(Scenes(), 12)
    questions, of_image = all_questions(asked)
    assert of_image == [i for i in range(12) for _ in range(3)]
    found = {}
    for batch in question_batches(questions, words, image_id=image_id):
        for row, ids, targets in zip(batch.rows.tolist(), batch.ids.tolist(),
                                     batch.targets.tolist(), strict=True):
            begin = [words.bos_id] + ([] if image_id is None else [image_id])
            assert ids[: len(begin)] == begin
            answer = [target for target in targets if target != IGNORE]
            n = targets.index(answer[0]) + 1
            assert words.decode(ids[len(begin) : n]) == questions[row].text
            assert words.decode(answer[:-1]) == f" {questions[row].answer}"
            assert answer[-1] == words.eos_id and ids[n : n + len(answer) - 1] == answer[:-1]
            found[row] = True
    assert sorted(found) == list(range(len(questions)))


def test_long_rows_do_not_make_short_rows_long():
    questions, _ = all_questions(some(Scenes(), 40))
    short, long = question_batches(questions, tokenizer(), image_id=IMAGE)
    assert short.ids.shape[1] <= 16 < long.ids.shape[1]
