import pytest

from llama_from_scratch.tokenizer.hugging_face.json_values import get, require


def test_a_value_of_another_type_is_refused_by_its_name():
    assert get({"a": 1}, "a", int) == 1 and require([], list, "it") == []
    with pytest.raises(ValueError, match="'a' must be a JSON int; got True. The file is damaged"):
        get({"a": True}, "a", int)
    with pytest.raises(ValueError, match="'b' must be a JSON str; got None"):
        get({"a": True}, "b", str)
