import numpy as np
import pytest

from llama_from_scratch.commands.pictures import paths_in, read


def test_images_are_read_and_remarks_on_them_are_said(photos, capsys):
    cat, moving = read([str(photos / "cat.png"), str(photos / "moving.gif")])
    assert (cat.width, cat.height, cat.mode) == (30, 20, "RGB")
    assert np.asarray(moving)[0, 0].tolist() == [254, 0, 0] or np.asarray(moving)[0, 0, 0] > 250
    said = capsys.readouterr().err
    assert said.startswith("llama: ") and "moving.gif: this image has several frames" in said
    assert said.count("\n") == 1


def test_a_path_may_begin_at_home(photos, monkeypatch):
    monkeypatch.setenv("HOME", str(photos))
    monkeypatch.setenv("USERPROFILE", str(photos))
    assert read(["~/cat.png"])[0].width == 30


@pytest.mark.parametrize("path", ["words.png", "nowhere.png", "."])
def test_a_file_that_is_no_image_is_refused(photos, path):
    with pytest.raises(ValueError, match="image"):
        read([str(photos / "cat.png"), str(photos / path)])


@pytest.mark.parametrize(("text", "paths"), [
    ("cat.png", ["cat.png"]),
    ("cat.png dog.png", ["cat.png", "dog.png"]),
    ("'/a b/cat 1.png' \"/c/d e.png\"", ["/a b/cat 1.png", "/c/d e.png"]),
    ("/a\\ b/cat\\ 1.png", ["/a b/cat 1.png"]),
    ("'/it'\\''s/a cat.png'", ["/it's/a cat.png"]),
    ("file:///a%20b/cat.png", ["/a b/cat.png"]),
    ("it's.png", ["it's.png"]),
    ("x" * 9999, ["x" * 9999]),
    ("a\0b", ["a\0b"]),
])
def test_paths_are_read_as_terminals_write_what_is_dropped_onto_them(text, paths):
    assert paths_in(text, is_windows=False) == paths


def test_on_windows_a_backslash_stays(photos):
    dropped = '"C:\\my photos\\cat.png" D:\\dog.png'
    assert paths_in(dropped, is_windows=True) == ["C:\\my photos\\cat.png", "D:\\dog.png"]


def test_the_path_of_a_file_needs_no_quotes(photos):
    path = str(photos / "my dog's.png")
    assert paths_in(path, is_windows=False) == paths_in(path, is_windows=True) == [path]
