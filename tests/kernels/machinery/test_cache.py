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
    with pytest.warns(UserWarning, match="cannot be kept in .*a file where.*Set XDG_CACHE_HOME "
                                         "to a folder of your own") as caught:
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


def test_the_default_folder_is_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = cached_file(KEY, suffix=".cubin", make=Maker())
    assert path.parent == cache.default_folder() == tmp_path / "llama_from_scratch" / "kernels"


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


# --- nobody else's code ---------------------------------------------------------------------------


@pytest.fixture
def umask_zero():
    before = os.umask(0)
    yield
    os.umask(before)


def plant(folder, data=b"planted"):
    """What a stranger who can write into the folder puts there: a file with the right name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{KEY[:32]}-{digest(data)[:32]}.so"
    path.write_bytes(data)
    path.chmod(0o755)
    return path


def modes(*paths):
    return [path.stat().st_mode & 0o777 for path in paths]


def belongs_to_another(path, monkeypatch):
    if os.geteuid() == 0:
        os.chown(path, 54321, -1)
    else:
        mine = os.geteuid()
        monkeypatch.setattr(cache.os, "geteuid", lambda: mine + 1)


def test_folders_and_files_are_made_for_their_user_alone(tmp_path, umask_zero):
    folder = tmp_path / "home" / ".cache" / "kernels"
    path = cached_file(KEY, suffix=".so", make=Maker(), folder=folder, is_program=True)
    assert modes(folder, folder.parent, folder.parent.parent) == [0o700] * 3
    assert not path.stat().st_mode & 0o022


def test_a_planted_library_is_found_in_a_folder_of_ones_own(tmp_path):
    """The name that the other tests plant is the right one."""
    path = plant(tmp_path)
    assert cached_file(KEY, suffix=".so", make=Maker(), folder=tmp_path) == path


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777, 0o702])
def test_a_folder_that_others_can_write_serves_nothing(tmp_path, mode):
    folder = plant(tmp_path / "open").parent
    folder.chmod(mode)
    with pytest.warns(UserWarning, match="other users can write into it; `chmod go-w` closes"):
        path = cached_file(KEY, suffix=".so", make=Maker(), folder=folder)
    assert path.parent != folder and path.read_bytes() == b"machine code"
    assert modes(path.parent) == [0o700]


def test_the_default_folder_is_closed_and_emptied_if_it_was_open(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    planted = plant(cache.default_folder())
    cache.default_folder().chmod(0o777)
    with pytest.warns(UserWarning, match="It is now closed to them, and kernels are compiled"):
        path = cached_file(KEY, suffix=".so", make=Maker())
    assert path.read_bytes() == b"machine code" and not planted.exists()
    assert modes(cache.default_folder()) == [0o755] and path.parent == cache.default_folder()


@pytest.mark.skipif(os.name == "nt", reason="Windows has other owners")
def test_a_folder_of_another_user_serves_nothing(tmp_path, monkeypatch):
    folder = plant(tmp_path / "theirs").parent
    belongs_to_another(folder, monkeypatch)
    with pytest.warns(UserWarning, match="belongs to another user, whose id is"), \
            pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "_folder_of_this_process", _warn_and_make(tmp_path, monkeypatch))
        path = cached_file(KEY, suffix=".so", make=Maker(), folder=folder)
    assert path.parent != folder and path.read_bytes() == b"machine code"


def _warn_and_make(tmp_path, monkeypatch):
    def make(folder, reason, is_program):
        monkeypatch.undo()  # or the folder that replaces it would be another user's, too
        warnings.warn(reason, stacklevel=2)
        (tmp_path / "mine").mkdir(mode=0o700)
        return tmp_path / "mine"
    return make


@pytest.mark.parametrize("how", ["written by all", "a link", "another's"])
def test_a_file_that_others_could_write_is_made_again(tmp_path, monkeypatch, how):
    folder = tmp_path / "mine"
    folder.mkdir(mode=0o700)
    path = plant(folder)
    if how == "written by all":
        path.chmod(0o666)
    elif how == "a link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    elif os.geteuid() == 0:
        os.chown(path, 54321, -1)
    else:
        pytest.skip("only root can give a file away")
    made = cached_file(KEY, suffix=".so", make=Maker(), folder=folder)
    assert made.read_bytes() == b"machine code" and not path.is_symlink() and not path.exists()


# --- disks that no program may run from -----------------------------------------------------------


@pytest.fixture
def noexec(tmp_path, monkeypatch):
    """A folder on a disk from which no program may run, as far as the cache can see."""
    folder = tmp_path / "noexec"
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(cache, "forbids_programs", lambda asked: asked == folder)
    cache._scratch_of_this_process.cache_clear()
    cache._folder_of_this_process.cache_clear()
    yield folder
    cache._scratch_of_this_process.cache_clear()
    cache._folder_of_this_process.cache_clear()


def test_programs_leave_a_disk_that_forbids_them_and_other_files_stay(noexec):
    make = Maker()
    assert cached_file(KEY, suffix=".json", make=make, folder=noexec).parent == noexec
    with pytest.warns(UserWarning, match=r"mounted noexec.*Set XDG_CACHE_HOME"):
        path = cached_file(KEY, suffix=".so", make=make, folder=noexec, is_program=True)
    assert path.parent != noexec


def test_a_temporary_folder_that_forbids_programs_is_passed_over(noexec, monkeypatch, tmp_path):
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(noexec))
    with pytest.warns(UserWarning, match="mounted noexec"):
        path = cached_file(KEY, suffix=".so", make=Maker(), folder=noexec, is_program=True)
    assert noexec not in path.parents


def test_a_machine_that_forbids_programs_everywhere_is_refused_with_the_cure(noexec, monkeypatch):
    monkeypatch.setattr(cache, "forbids_programs", lambda folder: True)
    with pytest.raises(RuntimeError, match="from which programs may run; none of .*Set XDG_CACHE"):
        cached_file(KEY, suffix=".so", make=Maker(), folder=noexec, is_program=True)


def test_a_real_noexec_mount_is_known(tmp_path):
    program = ("from pathlib import Path; from llama_from_scratch.kernels.machinery import cache; "
               f"print(cache.forbids_programs(Path({str(tmp_path)!r})))")
    inner = f'mount -t tmpfs -o noexec none "$0" && exec {sys.executable} -c "$1"'
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", *as_root, "--mount", "sh", "-c", inner, str(tmp_path), program]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        pytest.skip("needs the command unshare, of Linux")
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"this machine lets nobody mount: {done.stderr.strip()}")
    assert done.stdout == "True\n", done.stderr
    assert not cache.forbids_programs(tmp_path)


def test_what_speaks_against_a_folder_is_said_beforehand(noexec, tmp_path, monkeypatch):
    fresh = tmp_path / "a" / "b"
    assert cache.problem_with(fresh) == cache.problem_with(tmp_path) == "" and not fresh.exists()
    assert "noexec" in cache.problem_with(noexec) and "noexec" in cache.problem_with(noexec / "new")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert "other users can write" in cache.problem_with(tmp_path / "open")
    monkeypatch.setattr(cache.os, "access", lambda path, mode: False)
    assert cache.problem_with(fresh) == f"{tmp_path} cannot be written"


# --- what killed processes leave ------------------------------------------------------------------

BUILDER = """
import pathlib, sys, time
from llama_from_scratch.kernels.machinery.cache import cached_file
def make(path):
    (path.parent / "half.o").write_bytes(b"half")
    print("building", flush=True)
    sys.stdin.read()
    path.write_bytes(b"whole")
print(cached_file("1" * 64, suffix=".so", make=make, folder=pathlib.Path(sys.argv[1])))
"""


def builder(folder):
    started = subprocess.Popen([sys.executable, "-c", BUILDER, str(folder)], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert started.stdout.readline() == "building\n"
    return started


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be held on Windows")
def test_the_next_build_removes_what_a_killed_one_left(tmp_path):
    killed = builder(tmp_path)
    killed.kill()
    killed.communicate()
    assert [path.name[:9] for path in tmp_path.iterdir()] == ["building-"]
    path = cached_file(KEY, suffix=".so", make=Maker(), folder=tmp_path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be held on Windows")
def test_a_build_that_is_under_way_is_left_in_peace(tmp_path):
    other = builder(tmp_path)
    cached_file(KEY, suffix=".so", make=Maker(), folder=tmp_path)
    assert [path for path in tmp_path.iterdir() if path.name.startswith("building-")]
    out, _ = other.communicate("")
    assert Path(out.strip()).read_bytes() == b"whole" and other.returncode == 0
