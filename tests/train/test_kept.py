import shutil
import threading

import pytest

from llama_from_scratch.train import kept

KEY = kept.key_of("a mini", "of two parts")


def make(folder):
    folder.mkdir()
    (folder / "weights").write_bytes(bytes(range(100)))
    (folder / "note").write_text("two digests")


def test_what_was_kept_is_found_by_its_key_alone(tmp_path):
    kept.keep(tmp_path / "cache", KEY, make=make)
    found = kept.find(tmp_path / "cache", KEY)
    assert found.parent == tmp_path / "cache" and (found / "note").read_text() == "two digests"
    assert kept.find(tmp_path / "cache", kept.key_of("another")) is None
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [found.name]


def test_a_key_depends_on_every_part_and_on_where_parts_end():
    keys = [kept.key_of(*parts) for parts in (("ab", "c"), ("a", "bc"), ("abc",), ("ab", "d"))]
    assert len(set(keys)) == 4 and kept.key_of("ab", "c") == keys[0]


@pytest.mark.parametrize("damage", ["flip a bit", "lose a file", "add a file", "rename a file"])
def test_a_folder_with_other_files_than_its_name_promises_is_removed(damage, tmp_path):
    kept.keep(tmp_path, KEY, make=make)
    folder = kept.find(tmp_path, KEY)
    weights = folder / "weights"
    {"flip a bit": lambda: weights.write_bytes(bytes([1, *range(1, 100)])),
     "lose a file": weights.unlink, "add a file": lambda: (folder / "more").write_text(""),
     "rename a file": lambda: weights.rename(folder / "weight")}[damage]()
    assert kept.find(tmp_path, KEY) is None and not folder.exists()


def test_an_error_while_a_folder_is_made_keeps_nothing(tmp_path):
    def fail(folder):
        make(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        kept.keep(tmp_path, KEY, make=fail)
    assert list(tmp_path.iterdir()) == []


def test_two_that_keep_the_same_at_once_leave_one_folder(tmp_path):
    both_made = threading.Barrier(2)

    def slow(folder):
        make(folder)
        both_made.wait(timeout=60)

    threads = [threading.Thread(target=kept.keep, args=(tmp_path, KEY), kwargs={"make": slow})
               for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(tmp_path.iterdir())) == 1 and kept.find(tmp_path, KEY) is not None


def test_a_folder_that_vanishes_while_it_is_looked_at_is_not_there(tmp_path, monkeypatch):
    kept.keep(tmp_path, KEY, make=make)
    content = kept._content

    def vanishing(folder):
        shutil.rmtree(folder)
        return content(folder)

    monkeypatch.setattr(kept, "_content", vanishing)
    assert kept.find(tmp_path, KEY) is None


def test_what_a_killed_process_left_half_built_goes_with_the_next_build(tmp_path):
    (tmp_path / "building-x").mkdir()
    (tmp_path / "building-x/half").write_text("built")
    kept.keep(tmp_path, KEY, make=make)
    (left,) = tmp_path.iterdir()
    assert not left.name.startswith("building-")
