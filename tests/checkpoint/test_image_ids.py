import dataclasses

import pytest
from llama4_files import IDS, VOCAB, tokenizer

from llama_from_scratch import family
from llama_from_scratch.checkpoint.image_ids import ids_from, ids_in
from llama_from_scratch.tokenizer import released


def test_the_released_ids_are_those_of_the_released_special_tokens():
    ids = ids_in(202_048)
    assert ids == ids_from(200_080) == family.config("llama-4-scout-17b-16e").image_ids
    for name, number in dataclasses.asdict(ids).items():
        assert released.LLAMA_4[number - 200_000] == f"<|{name}|>"


def test_the_ids_of_a_smaller_vocabulary_are_those_of_its_tokenizer():
    assert ids_in(VOCAB) == ids_from(IDS.image_start) == IDS
    named = tokenizer().named_ids
    assert all(named[f"<|{name}|>"] == i for name, i in dataclasses.asdict(IDS).items())


def test_a_vocabulary_without_room_for_them_is_refused():
    with pytest.raises(ValueError, match=r"image_start must be an int above 0, .*; got -"):
        ids_in(1024)
