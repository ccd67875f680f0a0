"""Files are written whole, hashed without collisions, and changed by one process at a time."""

import errno
import os
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

import pytest

from llama_from_scratch import files
from llama_from_scratch.files import (
    checksum,
    digest,
    locked,
    replacing_file,
    scratch_folder,
    user_cache,
)


def test_file_appears_whole_and_in_one_step(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with replacing_file(target) as unfinished:
        unfinished.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_error_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(OSError, match="full"), replacing_file(target) as unfinished:
        unfinished.write_text("half")
        raise OSError("disk full")
    assert target.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_digest_tells_lists_of_parts_apart():
    assert digest("ab", "c") != digest("a", "bc") != digest("abc")
    assert digest("a", b"b") == digest(b"a", "b") and len(digest()) == 64


def test_lock_is_held_by_one_process_at_a_time_and_ends_with_it(tmp_path):
    code = ("import sys, time\nfrom llama_from_scratch.files import locked\n"
            "with locked(sys.argv[1]):\n    print('held', flush=True)\n    time.sleep(600)")
    other = subprocess.Popen([sys.executable, "-c", code, tmp_path / "a"], stdout=subprocess.PIPE,
                             text=True)
    assert other.stdout.readline() == "held\n"
    probe = ("import sys, time\nfrom llama_from_scratch.files import locked\n"
             "print('asks', flush=True)\nwith locked(sys.argv[1]):\n    print('got', flush=True)")
    asker = subprocess.Popen([sys.executable, "-c", probe, tmp_path / "a"], stdout=subprocess.PIPE,
                             text=True)
    assert asker.stdout.readline() == "asks\n"
    time.sleep(0.3)
    assert asker.poll() is None
    other.kill()
    assert asker.communicate(timeout=60)[0] == "got\n"
    with locked(tmp_path / "a"):
        pass


def test_a_lock_file_goes_with_the_block_and_a_dead_ones_is_taken_over(tmp_path):
    (tmp_path / ".a.lock").write_text("process 1 on a machine that crashed")
    with locked(tmp_path / "a", waits=False):
        told = (tmp_path / ".a.lock").read_text()
        assert f"process {os.getpid()} on " in told and ", since " in told
        with locked(tmp_path / "a", waits=False):
            pass
        assert (tmp_path / ".a.lock").exists(), "the inner block does not end the outer one"
    assert list(tmp_path.iterdir()) == []


def test_another_thread_is_another_writer(tmp_path):
    refused = []

    def enter():
        told = rf"process {os.getpid()} on .* does now. Wait"
        with pytest.raises(ValueError, match=told), locked(tmp_path / "a", waits=False):
            pytest.fail("the block ran")
        refused.append(True)

    with locked(tmp_path / "a"):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    assert refused


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_named_and_the_work_goes_on(number, tmp_path, monkeypatch):
    def unable(*_, **__):
        raise OSError(number, "No locks available")

    monkeypatch.setattr(files, "_lock", unable)
    with pytest.warns(UserWarning, match="has no locks"), locked(tmp_path / "a", waits=False):
        (tmp_path / "a").write_text("done")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


COUNTING = """
import sys
from llama_from_scratch.files import locked
for _ in range(60):
    with locked(sys.argv[1]):
        with open(sys.argv[1], "r+") as file:
            n = int(file.read())
            file.seek(0)
            file.write(str(n + 1))
"""


def test_a_lock_whose_file_comes_and_goes_is_held_by_one_at_a_time(tmp_path):
    (tmp_path / "n").write_text("0")
    runs = [subprocess.Popen([sys.executable, "-c", COUNTING, tmp_path / "n"]) for _ in range(3)]
    assert [run.wait() for run in runs] == [0, 0, 0]
    assert (tmp_path / "n").read_text() == "180"


def test_a_file_behind_a_link_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "a").symlink_to("disk/a")
    for text in "12":
        with replacing_file(tmp_path / "a") as unfinished:
            unfinished.write_text(text)
        assert (tmp_path / "disk/a").read_text() == text and (tmp_path / "a").is_symlink()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "a", "disk"]


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path):
    (tmp_path / ".a.unfinished").write_text("half")
    (tmp_path / ".a.lock").write_text("")
    with replacing_file(tmp_path / "a") as unfinished:
        unfinished.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_second_fault_while_tidying_up_does_not_hide_the_first(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files.Path, "unlink", broken)
    with pytest.raises(OSError, match="disk full"), replacing_file(tmp_path / "a"):
        raise OSError("disk full")


def test_a_checksum_is_the_crc_32_and_any_flipped_bit_changes_it(tmp_path):
    data = bytes(range(256)) * 5000  # more than one piece
    (tmp_path / "a").write_bytes(data)
    known = checksum(tmp_path / "a")
    assert known == f"{zlib.crc32(data):08x}"
    for bit in range(0, 8 * len(data), 1_000_003):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "a").write_bytes(damaged)
        assert checksum(tmp_path / "a") != known


KILLED_SCRATCH = """
import os, signal, sys
from pathlib import Path
from llama_from_scratch.files import scratch_folder
with scratch_folder(Path(sys.argv[1])) as scratch:
    (scratch / "half").write_text("built")
    print(scratch.name, flush=True)
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_scratch_folder_lives_as_long_as_its_process_and_goes_with_the_next_one(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", KILLED_SCRATCH, tmp_path], text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    theirs = other.stdout.readline().strip()
    (tmp_path / "building-of an earlier version").mkdir()
    with scratch_folder(tmp_path) as scratch:
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([theirs, scratch.name])
    assert (tmp_path / theirs / "half").exists(), "its process lives"
    other.communicate("")
    assert [path.name for path in tmp_path.iterdir()] == [theirs]
    with scratch_folder(tmp_path) as scratch:
        pass
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_taken_for_dead_where_there_are_no_locks(tmp_path, monkeypatch):
    (tmp_path / "building-1").mkdir()

    def unable(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files, "_lock", unable)
    with pytest.warns(UserWarning, match="has no locks"), scratch_folder(tmp_path):
        pass
    assert (tmp_path / "building-1").exists()


def test_a_lock_on_a_file_that_its_holder_removed_meanwhile_is_taken_again(tmp_path, monkeypatch):
    lock, asked = files._lock, []

    def after_the_holder_ended(file, *, waits):
        if not asked:
            (tmp_path / ".a.lock").unlink()
        asked.append(file)
        lock(file, waits=waits)

    monkeypatch.setattr(files, "_lock", after_the_holder_ended)
    with locked(tmp_path / "a"):
        assert (tmp_path / ".a.lock").exists() and len(asked) == 2


def test_users_cache_is_where_the_user_says_and_else_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "llama_from_scratch"
    for chosen in ("", "not/absolute"):
        monkeypatch.setenv("XDG_CACHE_HOME", chosen)
        assert user_cache() == Path.home() / ".cache" / "llama_from_scratch"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no numbered users")
def test_user_without_a_home_folder_has_a_cache_in_the_temporary_folder(monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", home)
    assert user_cache().parent == Path(tempfile.gettempdir())
    assert str(os.getuid()) in user_cache().name
