"""Files are written whole, hashed without collisions, and changed by one process at a time."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from llama_from_scratch.files import digest, locked, replacing_file, sharing, user_cache


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


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be held on Windows")
def test_only_the_first_to_share_a_folder_is_alone(tmp_path):
    calls = []
    with sharing(tmp_path, alone=lambda: calls.append("first")):
        with sharing(tmp_path, alone=lambda: calls.append("second")):
            pass
        assert calls == ["first"]
    with sharing(tmp_path, alone=lambda: calls.append("third")):
        pass
    assert calls == ["first", "third"]
