"""The disk cache of compiled kernels: built once, never stale, never half written, no lock."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from llama_from_scratch.files import digest
from llama_from_scratch.kernels.machinery import cache
from llama_from_scratch.kernels.machinery.cache import cached_file

KEY = digest("source", "flags")


class Maker:
    """Writes its bytes, and counts how often it was asked to."""

    def __init__(self, data=b"machine code"):
        self.data, self.calls = data, 0

    def __call__(self, path):
        self.calls += 1
        path.write_bytes(self.data)


def cubins(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_made_once_and_then_found(tmp_path):
    make = Maker()
    paths = {cached_file(KEY, suffix=".cubin", make=make, folder=tmp_path / "new" / "folder")
             for _ in range(3)}
    assert make.calls == 1 and len(paths) == 1
    assert paths.pop().read_bytes() == b"machine code"
    assert len(cubins(tmp_path / "new" / "folder")) == 1, "scratch files must not stay"


def test_another_key_or_suffix_is_another_file(tmp_path):
    first = cached_file(KEY, suffix=".cubin", make=Maker(b"1"), folder=tmp_path)
    second = cached_file(digest("source", "other flags"), suffix=".cubin", make=Maker(b"2"),
                         folder=tmp_path)
    third = cached_file(KEY, suffix=".so", make=Maker(b"3"), folder=tmp_path)
    assert [path.read_bytes() for path in (first, second, third)] == [b"1", b"2", b"3"]


@pytest.mark.parametrize("damage",
                         [lambda data: data[:5], lambda data: b"", lambda data: b"M" + data[1:]])
def test_a_truncated_or_foreign_file_is_made_again(tmp_path, damage):
    path = cached_file(KEY, suffix=".cubin", make=Maker(), folder=tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    make = Maker()
    assert cached_file(KEY, suffix=".cubin", make=make,
                       folder=tmp_path).read_bytes() == b"machine code"
    assert make.calls == 1 and len(cubins(tmp_path)) == 1


def test_a_failure_to_make_passes_through_and_leaves_nothing(tmp_path):
    def fail(path):
        path.write_bytes(b"half")
        raise RuntimeError("line 7: error")

    with pytest.raises(RuntimeError, match="line 7: error"):
        cached_file(KEY, suffix=".cubin", make=fail, folder=tmp_path)
    assert cubins(tmp_path) == []
    assert cached_file(KEY, suffix=".cubin", make=Maker(),
                       folder=tmp_path).read_bytes() == b"machine code"


def test_a_maker_may_leave_other_files_beside_its_own(tmp_path):
    def make(path):
        path.with_suffix(".o").write_bytes(b"object")
        path.write_bytes(b"linked")

    assert cached_file(KEY, suffix=".so", make=make, folder=tmp_path).read_bytes() == b"linked"
    assert len(cubins(tmp_path)) == 1


def test_a_folder_that_cannot_be_written_gives_way_to_a_temporary_one_with_one_warning(tmp_path):
    # holds for root, too, unlike permissions
    blocked = tmp_path / "a file where a folder should be" / "kernels"
    blocked.parent.write_text("")
    make = Maker()
    with pytest.warns(UserWarning, match="cannot be kept in .*a file where.*make that folder "
                                         "writable") as caught:
        first = cached_file(KEY, suffix=".cubin", make=make, folder=blocked)
        second = cached_file(KEY, suffix=".cubin", make=make, folder=blocked)
    assert first == second and first.read_bytes() == b"machine code" and make.calls == 1
    assert len(caught) == 1


@pytest.mark.skipif(os.geteuid() == 0 if sys.platform != "win32" else True,
                    reason="root may write everywhere")
def test_a_read_only_folder_still_serves_what_it_holds(tmp_path):
    path = cached_file(KEY, suffix=".cubin", make=Maker(), folder=tmp_path)
    tmp_path.chmod(0o500)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert cached_file(KEY, suffix=".cubin", make=Maker(), folder=tmp_path) == path
    finally:
        tmp_path.chmod(0o700)


def test_the_default_folder_lies_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    path = cached_file(KEY, suffix=".cubin", make=Maker())
    assert path.parent == cache.default_folder()
    assert path.parent == tmp_path / ".cache" / "llama_from_scratch" / "kernels"


def test_processes_that_make_the_same_file_at_once_all_get_a_whole_one(tmp_path):
    program = """
import sys, time, pathlib
from llama_from_scratch.kernels.machinery.cache import cached_file
folder, me = pathlib.Path(sys.argv[1]), sys.argv[2]
def make(path):
    (folder / f"started-{me}").touch()
    while len(list(folder.glob("started-*"))) < 2: time.sleep(0.002)   # until both have begun
    with path.open("wb") as file:
        for _ in range(64): file.write(b"x" * 4096); file.flush()
path = cached_file("0" * 64, suffix=".cubin", make=make, folder=folder / "cache")
assert path.read_bytes() == b"x" * 4096 * 64
"""
    runs = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name],
                             stderr=subprocess.PIPE) for name in "ab"]
    for run in runs:
        _, errors = run.communicate(timeout=120)
        assert run.returncode == 0, errors.decode()
    assert len(cubins(tmp_path / "cache")) == 1


def test_what_a_killed_process_left_half_built_goes_with_the_next_build(tmp_path):
    (tmp_path / "building-x").mkdir()
    (tmp_path / "building-x/half").write_text("built")
    cached_file(KEY, suffix=".cubin", make=Maker(), folder=tmp_path)
    (left,) = tmp_path.iterdir()
    assert not left.name.startswith("building-")
