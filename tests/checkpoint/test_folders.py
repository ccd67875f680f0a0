import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_checkpoints import TOKENIZER, drawn, same_weights

from llama_from_scratch.checkpoint import folders, native, safetensors_file
from llama_from_scratch.checkpoint.folders import creating_folder, find, held, replacing_folder


def test_a_folder_with_other_files_is_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"also holds thesis.txt. Choose an empty or a new folder"):
        native.save(tmp_path, drawn(0), TOKENIZER)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="a config.json of another program"):
        native.save(tmp_path / "foreign", drawn(0), TOKENIZER)
    with pytest.raises(ValueError, match=r"is a file. Choose another name"):
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
    stages = list(range(1, 23))
    for stage in stages:
        native.save(tmp_path / str(stage), drawn(1), TOKENIZER)
    script = KILLED_SAVE.format(tests=[str(Path(__file__).parent), str(Path(__file__).parents[1])],
                                stages=stages, root=str(tmp_path))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                           check=True).stdout.split()
    killed = [stage for stage, code in zip(stages, ended, strict=True)
              if int(code) == -signal.SIGKILL]
    assert 10 <= len(killed) < len(stages), ended
    is_new = []
    for stage in stages:
        kept, _ = native.load(tmp_path / str(stage))
        is_new.append(same_weights(kept, drawn(2)))
        assert is_new[-1] or same_weights(kept, drawn(1)), f"stage {stage}"
    assert is_new == sorted(is_new), "the new one appears with the last rename, and stays"
    assert is_new[len(killed) - 1] and not is_new[len(killed) - 4]
    for stage in stages:
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
                       match="holds files. Choose another name"), creating_folder(
                           tmp_path / "empty"):
        pytest.fail("the block ran")
    # as a kill between the renames leaves it
    (tmp_path / "empty").rename(tmp_path / ".kept.previous")
    with pytest.raises(ValueError,
                       match="holds files. Choose another name"), creating_folder(
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


def save(folder, text):
    """A small folder in place of `folder`, through the same door as a checkpoint."""
    with replacing_folder(folder, refuse=lambda folder: None) as unfinished:
        (unfinished / "config.json").write_text(text)


def content(folder):
    return (find(folder) / "config.json").read_text()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


LINKED = {
    "a link": lambda disk, home: (disk / "run").mkdir() or (home / "run").symlink_to(disk / "run"),
    "a link to nothing yet": lambda disk, home: (home / "run").symlink_to(disk / "run"),
    "a relative link": lambda disk, home: (home / "run").symlink_to("../disk/run"),
    "a link to a link": lambda disk, home: (
        (disk / "middle").symlink_to(disk / "run") or (home / "run").symlink_to(disk / "middle")),
}


@pytest.mark.parametrize("kind", LINKED)
def test_a_link_stays_a_link_and_every_save_goes_where_it_leads(kind, tmp_path, monkeypatch):
    disk, home = tmp_path / "disk", tmp_path / "home"
    disk.mkdir()
    home.mkdir()
    LINKED[kind](disk, home)
    for name in (home / "run", f"{home / 'run'}/", "run/"):
        monkeypatch.chdir(home)
        for text in ("1", "2", "3"):
            save(name, text)
            assert content(name) == content(disk / "run") == text
    assert (home / "run").is_symlink() and names(home) == ["run"]
    assert not (disk / "run").is_symlink()
    assert names(disk) == (["middle", "run"] if "link to a link" in kind else ["run"])


def test_a_link_among_the_parents_is_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to("disk")
    for text in "12":
        save(tmp_path / "runs/a/b", text)
        assert content(tmp_path / "disk/a/b") == text
    assert names(tmp_path / "disk/a") == ["b"] and (tmp_path / "runs").is_symlink()


def test_a_link_to_where_nothing_can_be_is_refused(tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "not mounted/run")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for name in ("run", "run/inner", "circle", "circle/inner"):
        with pytest.raises(ValueError, match="a link must lead into a folder that exists"):
            save(tmp_path / name, "1")
    assert names(tmp_path) == ["circle", "run"]


def test_what_an_earlier_version_made_of_a_link_is_put_right(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / ".run.previous").symlink_to("disk")
    save(tmp_path / "run", "1")
    save(tmp_path / "run", "2")
    assert content(tmp_path / "run") == "2" and names(tmp_path) == ["disk", "run"]


def test_a_kill_between_the_renames_behind_a_link_is_found(tmp_path):
    (tmp_path / "run").symlink_to("real")
    save(tmp_path / "run", "1")
    (tmp_path / "real").rename(tmp_path / ".real.previous")
    assert content(tmp_path / "run") == "1"
    save(tmp_path / "run", "2")
    assert content(tmp_path / "real") == "2" and names(tmp_path) == ["real", "run"]


def test_a_folder_that_cannot_be_renamed_is_refused_before_anything_is_written(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in (".", "./", tmp_path):
        with pytest.raises(ValueError, match=r"this program runs in. Name a folder inside"):
            save(name, "1")
    with pytest.raises(ValueError, match="a disk is mounted there"):
        save("/proc", "1")
    with pytest.raises(ValueError, match="a disk is mounted there"):
        save("/", "1")
    with pytest.raises(ValueError, match=r"rename folders in /proc; .*choose another place"):
        save("/proc/run", "1")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"file is a file, so .*cannot be created"):
        save("file/a/b", "1")
    with pytest.raises(ValueError, match="File name too long"):
        save("a" * 300, "1")
    assert names(tmp_path) == ["file"]


def test_a_folder_that_the_system_does_not_let_go_is_refused_at_the_door(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    rename = os.rename

    def busy(source, target):
        if Path(source) == tmp_path / "run":
            raise OSError(errno.EBUSY, "Device or resource busy", source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", busy)
    with pytest.raises(ValueError, match=r"Device or resource busy.*such as .*/run/run"), held(
        tmp_path / "run"
    ):
        pytest.fail("the block ran")
    assert names(tmp_path) == ["run"]


def test_parents_that_were_made_for_nothing_go(tmp_path):
    with held(tmp_path / "a/b/c") as folder:
        assert folder == tmp_path / "a/b/c" and folder.parent.is_dir()
    assert names(tmp_path) == []


def test_what_is_written_lands_where_it_was_meant_after_a_change_of_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with replacing_folder("run", refuse=lambda folder: None) as unfinished:
        os.chdir("elsewhere")
        (unfinished / "config.json").write_text("1")
    assert content(tmp_path / "run") == "1" and names(tmp_path / "elsewhere") == []


def test_one_writer_at_a_time_and_readers_wait_for_nobody(tmp_path):
    save(tmp_path / "run", "1")
    script = ("import sys\nfrom llama_from_scratch.checkpoint.folders import held\n"
              "with held(sys.argv[1]):\n    print('held', flush=True)\n    sys.stdin.read()")
    other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "run")], text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout.readline() == "held\n"
    (tmp_path / "link").symlink_to("run")
    for name in ("run", "link"):
        with pytest.raises(ValueError, match=r"only one process at a time may write .*run; "
                                             rf"process {other.pid} on .*, since .* does now"):
            save(tmp_path / name, "2")
        assert content(tmp_path / name) == "1"
    other.kill()
    other.wait()
    save(tmp_path / "run", "2")
    assert content(tmp_path / "run") == "2" and names(tmp_path) == ["link", "run"]


def test_saves_inside_a_run_are_inside_its_lock(tmp_path):
    with held(tmp_path / "run"):
        for text in "12":
            save(tmp_path / "run", text)
    assert content(tmp_path / "run") == "2" and names(tmp_path) == ["run"]


@pytest.mark.parametrize("name", [".run.previous", ".run.unfinished"])
@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_a_kill_left_is_removed_by_the_next_run(name, kind, tmp_path):
    save(tmp_path / "run", "1")
    left = tmp_path / name
    if kind == "folder":
        left.mkdir()
        (left / "config.json").write_text("old")
    elif kind == "file":
        left.write_text("")
    else:
        left.symlink_to("nowhere")
    with held(tmp_path / "run"):
        pass
    assert names(tmp_path) == ["run"] and content(tmp_path / "run") == "1"


def test_a_fault_in_the_last_clean_up_fails_no_save_and_the_next_one_tidies_up(
    tmp_path, monkeypatch
):
    save(tmp_path / "run", "1")
    rename = os.rename

    def broken(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    def rename_but_not_away(source, target):
        if Path(source).name == ".run.previous":
            broken()
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename_but_not_away)
        patch.setattr(os, "rmdir", broken)
        patch.setattr(os, "unlink", broken)
        save(tmp_path / "run", "2")
    assert content(tmp_path / "run") == "2" and ".run.previous" in names(tmp_path)
    save(tmp_path / "run", "3")
    assert content(tmp_path / "run") == "3" and names(tmp_path) == ["run"]


def test_an_old_folder_that_goes_in_part_is_never_taken_for_a_checkpoint(tmp_path, monkeypatch):
    save(tmp_path / "run", "1")
    with monkeypatch.context() as patch:
        patch.setattr(folders, "remove", lambda path: None)
        save(tmp_path / "run", "2")
    (tmp_path / "run").rename(tmp_path / "moved by its owner")
    assert find(tmp_path / "run") is None


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_a_new_folder_has_the_permissions_of_the_old_one(tmp_path):
    save(tmp_path / "run", "1")
    for mode in (0o700, 0o2775, 0o750):
        (tmp_path / "run").chmod(mode)
        save(tmp_path / "run", "2")
        assert (tmp_path / "run").stat().st_mode & 0o7777 == mode
