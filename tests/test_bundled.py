import pytest

from llama_from_scratch import bundled


def test_path_finds_the_stories():
    assert bundled.path("stories.txt").read_bytes()[:1].isascii()
    assert bundled.path("stories.txt").parent.name == "data"


def test_path_finds_them_from_any_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bundled.path("stories.txt").is_file()


def test_missing_data_says_where_it_comes_from_and_how_to_remake_it():
    cure = r"'no\.txt'.*pip install -e.*data/README\.md.*make_stories\.py"
    with pytest.raises(FileNotFoundError, match=cure):
        bundled.path("no.txt")


def test_a_package_without_the_repository_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "DATA", tmp_path / "data")
    with pytest.raises(FileNotFoundError, match="clone of the repository"):
        bundled.path("stories.txt")
