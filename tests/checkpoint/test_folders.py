import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_checkpoints import TOKENIZER, drawn, same_weights

from llama_from_scratch.checkpoint import native, safetensors_file
from llama_from_scratch.checkpoint.folders import creating_folder, find, replacing_folder


def test_a_folder_with_other_files_is_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"also holds thesis.txt. Choose an empty or a new folder"):
        native.save(tmp_path, drawn(0), TOKENIZER)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="a config.json of another program"):
        native.save(tmp_path / "foreign", drawn(0), TOKENIZER)
    with pytest.raises(ValueError, match=r"is a file; choose another name"):
        native.save(tmp_path / "thesis.txt", drawn(0), TOKENIZER)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


class Injected:
    """Counts the calls that change the disk, and lets one of them fail."""

    def __init__(self, monkeypatch, fail):
        self.count, self.fail_at, self.fail = 0, None, fail
        for owner, name in [(os, "rename"), (os, "replace"), (os, "fsync"), (Path, "mkdir"),
                            (Path, "write_text"),
                            (Path, "write_bytes"), (safetensors_file, "save_file")]:
            monkeypatch.setattr(owner, name, self.wrap(getattr(owner, name)))

    def wrap(self, function):
        def wrapped(*args, **kwargs):
            self.count += 1
            if self.count == self.fail_at:
                self.fail()
            return function(*args, **kwargs)
        return wrapped


def no_space():
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_at_any_stage_leaves_the_previous_checkpoint_intact(tmp_path, monkeypatch):
    old, new = drawn(1), drawn(2)
    native.save(tmp_path / "m", old, TOKENIZER)
    disk = Injected(monkeypatch, no_space)
    native.save(tmp_path / "trial", new, TOKENIZER)
    n_stages = disk.count + 1  # replacing an old folder takes one rename more
    assert n_stages >= 10
    for stage in range(1, n_stages + 1):
        disk.count, disk.fail_at = 0, stage
        with pytest.raises(OSError, match="No space left"):
            native.save(tmp_path / "m", new, TOKENIZER)
        disk.fail_at = None
        kept, _ = native.load(tmp_path / "m")
        if stage < n_stages:  # the last stage forces the finished renames to the disk
            assert same_weights(kept, old), f"stage {stage} of {n_stages}"
            assert sorted(p.name
                          for p in tmp_path.iterdir()) == [
                              "m", "trial"], f"stage {stage} leaves no rubbish"
    native.save(tmp_path / "m", new, TOKENIZER)
    assert same_weights(native.load(tmp_path / "m")[0], new)


def test_a_full_disk_right_after_a_kill_between_the_renames_still_leaves_a_checkpoint(
    tmp_path, monkeypatch
):
    native.save(tmp_path / "m", drawn(1), TOKENIZER)
    (tmp_path / "m").rename(tmp_path / ".m.previous")
    assert same_weights(native.load(tmp_path / "m")[0], drawn(1))
    disk = Injected(monkeypatch, no_space)
    disk.fail_at = 3
    with pytest.raises(OSError, match="No space left"):
        native.save(tmp_path / "m", drawn(2), TOKENIZER)
    assert same_weights(native.load(tmp_path / "m")[0], drawn(1))


KILLED_SAVE = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {tests!r}
import test_folders as t
class Patch:
    def setattr(self, owner, name, value): setattr(owner, name, value)
disk = t.Injected(Patch(), lambda: os.kill(os.getpid(), signal.SIGKILL))
for stage in {stages!r}:
    if os.fork() == 0:
        disk.count, disk.fail_at = 0, stage
        t.native.save(Path({root!r}) / str(stage), t.drawn(2), t.TOKENIZER)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL and fork are POSIX; the renames are the same "
                                            "on Windows")
def test_a_kill_at_any_stage_leaves_a_whole_checkpoint(tmp_path):
    stages = list(range(1, 16))
    for stage in stages:
        native.save(tmp_path / str(stage), drawn(1), TOKENIZER)
    script = KILLED_SAVE.format(tests=[str(Path(__file__).parent), str(Path(__file__).parents[1])],
                                stages=stages, root=str(tmp_path))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                           check=True).stdout.split()
    killed = [stage for stage, code in zip(stages, ended, strict=True)
              if int(code) == -signal.SIGKILL]
    assert len(killed) >= 10, ended
    for stage in stages:
        kept, _ = native.load(tmp_path / str(stage))
        is_new = same_weights(kept, drawn(2))
        assert is_new or same_weights(kept, drawn(1)), f"stage {stage}"
        where = f"stage {stage} of {killed[-1]}: the new one appears with the last rename"
        assert is_new == (stage >= killed[-1]), where
        native.save(tmp_path / str(stage), drawn(3), TOKENIZER)
        assert same_weights(native.load(tmp_path / str(stage))[0], drawn(3))
    assert len(list(tmp_path.iterdir())) == len(stages), "the next save clears what the kill left"


def test_a_folder_is_found_aside_where_a_kill_left_it(tmp_path):
    folder, aside = tmp_path / "m", tmp_path / ".m.previous"
    assert find(folder) is None
    aside.mkdir()
    (aside / "config.json").write_text("{}")
    assert find(folder) == aside
    folder.mkdir()
    assert find(folder) == aside, "a folder without a config.json is no checkpoint"
    (folder / "config.json").write_text("{}")
    assert find(folder) == folder


def test_a_new_folder_is_never_made_over_one_that_holds_anything(tmp_path):
    (tmp_path / "empty").mkdir()
    with creating_folder(tmp_path / "empty") as unfinished:
        (unfinished / "a").write_text("new")
    assert (tmp_path / "empty/a").read_text() == "new"
    with pytest.raises(ValueError,
                       match="holds files; choose another name"), creating_folder(
                           tmp_path / "empty"):
        pytest.fail("the block ran")
    # as a kill between the renames leaves it
    (tmp_path / "empty").rename(tmp_path / ".kept.previous")
    with pytest.raises(ValueError,
                       match="holds files; choose another name"), creating_folder(
                           tmp_path / "kept"):
        pytest.fail("the block ran")
    assert (tmp_path / "kept/a").read_text() == "new"


def test_an_error_in_the_block_leaves_what_was_there_and_nothing_else(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m/a").write_text("old")
    with pytest.raises(KeyError), replacing_folder(tmp_path / "m",
                                                   refuse=lambda folder: None) as unfinished:
        (unfinished / "a").write_text("new")
        raise KeyError
    assert [path.name
            for path in tmp_path.rglob("*")] == ["m",
                                                 "a"] and (tmp_path / "m/a").read_text() == "old"
