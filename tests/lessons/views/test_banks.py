"""The passes of a read, for each pattern and chunk."""

from llama_from_scratch.lessons import views


def test_choosing_a_pattern_tells_its_passes():
    explorer = views.swizzle()
    assert "takes 32 passes" in explorer.words.value
    explorer.controls["pattern"].value = "chunk ^ (row % 8)"
    for chunk in explorer.controls["chunk"].options:
        explorer.controls["chunk"].value = chunk[1] if isinstance(chunk, tuple) else chunk
        assert "takes 4 passes" in explorer.words.value and explorer.problem.value == ""
