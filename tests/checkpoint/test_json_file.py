import pytest

from llama_from_scratch.checkpoint.json_file import differences, read_json, write_json


def test_what_is_written_is_read_back(tmp_path):
    value = {"dim": 64, "names": ["é", None], "deep": {"eps": 1e-5}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert (tmp_path / "a.json").read_text(encoding="utf-8").startswith('{\n  "dim": 64,\n')


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe"])
def test_a_file_that_is_damaged_is_named(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"needs a JSON file at .*a.json; it cannot be read"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(("saved", "current", "lines"), [
    ({"dim": 64}, {"dim": 128}, ["dim is 64 there and 128 here"]),
    ({"dim": 64}, {"dim": 64}, []),
    ({"a": {"b": 1}}, {"a": {"b": 2, "c": 3}},
     ["a.b is 1 there and 2 here", "a.c is None there and 3 here"]),
    ({"a": [1, 2]}, {"a": [1, 3]}, ["a[1] is 2 there and 3 here"]),
    ({"a": [1, 2]}, {"a": [1]}, ["a has 2 entries there and 1 here"]),
    ({"a": [1]}, {"a": 1}, ["a is [1] there and 1 here"]),
])
def test_a_difference_is_one_line_with_the_key(saved, current, lines):
    assert differences(saved, current) == lines
