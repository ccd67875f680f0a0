import pytest

from llama_from_scratch.tokenizer.added_tokens import AddedToken
from llama_from_scratch.tokenizer.hugging_face.parts import parts_of


def file(**changes):
    added = [{"id": 3, "content": "<x>", "special": True, "lstrip": True}]
    return {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
            "added_tokens": added} | changes


def test_added_tokens_keep_their_flags_and_merges_their_order():
    parts = parts_of(file())
    assert parts.added == (AddedToken("<x>", 3, strips_left=True),)
    assert parts.base == {"a": 0, "b": 1, "ab": 2} and parts.ids == parts.base | {"<x>": 3}
    assert parts.ranked_merges() == {(0, 1): (0, 2)}


def test_a_token_that_is_in_the_vocabulary_and_added_has_one_id():
    both = file(added_tokens=[{"id": 2, "content": "ab", "special": False}])
    assert parts_of(both).base == {"a": 0, "b": 1}
    both["added_tokens"][0]["id"] = 3
    with pytest.raises(ValueError, match="got none or two at 2. The file lost a part"):
        parts_of(both)


def test_fewer_tokens_than_ids_are_noticed():
    short = file()
    short["model"] = short["model"] | {"vocab": {"a": 0, "b": 1}, "merges": []}
    with pytest.raises(ValueError, match="3 tokens must have the ids 0 to 2, each once; got none "
                                         "or two at 2. The file lost a part: download it again"):
        parts_of(short)
