"""Compiled kernels on disk, so that each is built once and not at every start.

A file's name has two digests: one of everything that it was made from (source, headers, flags,
compiler), and one of its own bytes. The first makes a stale hit impossible. The second shows a
truncated or foreign file before anything loads it. A file appears under its name in one step,
complete, so processes that compile the same thing at once need not wait for each other.

The files in this folder are run as programs. So only its user may write to it, and no folder or
file that another user could have written is used.

Notebook 30.
"""

import contextlib
import functools
import os
import stat
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from llama_from_scratch.files import digest, scratch_folder, user_cache

DIGITS = 32  # hexadecimal, of either digest in a file's name: 128 bits
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
CURE = "Set XDG_CACHE_HOME to a folder of your own from which programs may run"


class UnfitFolder(Exception):
    """Raised, with the reason, if compiled kernels cannot be kept in a folder."""


def default_folder() -> Path:
    """Returns the folder where compiled kernels are kept unless a caller names another one."""
    return user_cache() / "kernels"


def cached_file(
    key: str, *, suffix: str, make: Callable[[Path], object], folder: Path | None = None,
    is_program: bool = False,
) -> Path:
    """Returns the file that `make` writes to a path; calls it only if there is none for this key.

    `make` works in a scratch folder of its own. Other files that it leaves there are removed, at
    the latest when the next file is made. Its exceptions pass through, and leave nothing behind. If
    the folder cannot be written, if others can write to it, or if the file `is_program` and no
    program may run from there, a temporary folder of this process replaces it, with one warning.
    Raises RuntimeError if no folder can keep a program.
    """
    if folder is None:
        folder = default_folder()
        _close(folder)
    try:
        return _found_or_made(folder, key, suffix, make, is_program)
    except UnfitFolder as reason:
        folder = _folder_of_this_process(folder, str(reason), is_program)
        return _found_or_made(folder, key, suffix, make, is_program)


def check_folder(folder: Path, *, is_program: bool) -> None:
    """Raises UnfitFolder, with the reason, if nothing should be loaded from an existing folder."""
    if os.name != "nt":
        found = folder.stat()
        if found.st_uid not in (os.geteuid(), 0):
            raise UnfitFolder(f"it belongs to another user, whose id is {found.st_uid}")
        if found.st_mode & OTHERS_WRITE:
            raise UnfitFolder("other users can write into it; `chmod go-w` closes it")
    if is_program and forbids_programs(folder):
        raise UnfitFolder("its disk is mounted noexec: no program may run from there")


def forbids_programs(folder: Path) -> bool:
    """Returns True if the disk of this folder is known to be mounted with `noexec`."""
    return os.name != "nt" and bool(os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0))


def problem_with(folder: Path) -> str:
    """Returns why programs cannot be kept in a folder, which need not exist yet; "" if they can."""
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        if nearest == folder:
            check_folder(folder, is_program=True)
        elif forbids_programs(nearest):
            return "its disk is mounted noexec: no program may run from there"
        return "" if os.access(nearest, os.W_OK) else f"{nearest} cannot be written"
    except (UnfitFolder, OSError) as problem:
        return str(problem)


def _found_or_made(
    folder: Path, key: str, suffix: str, make: Callable[[Path], object], is_program: bool
) -> Path:
    try:
        if not folder.exists():
            _make_private(folder)
        check_folder(folder, is_program=is_program)
        if found := _intact(folder, key, suffix):
            return found
        build = contextlib.ExitStack()
        scratch = build.enter_context(scratch_folder(folder))
    except OSError as error:
        raise UnfitFolder(str(error)) from error
    with build:
        made = scratch / f"{key[:DIGITS]}{suffix}"
        make(made)
        final = folder / f"{key[:DIGITS]}-{_content_digest(made)}{suffix}"
        made.chmod(made.stat().st_mode & ~OTHERS_WRITE)
        # Not files.replacing_file, whose unfinished file has one name for all processes. The bytes
        # need not be on the disk already: the digest shows a file that a crash has cut off.
        os.replace(made, final)
    return final


def _make_private(folder: Path) -> None:
    """Makes a folder and the missing folders above it, so that only their user may use them."""
    for path in reversed([folder, *folder.parents]):
        if not path.exists():
            path.mkdir(mode=0o700, exist_ok=True)


def _close(folder: Path) -> None:
    """If other users can write to our own folder, ends that and deletes the files in it.

    An earlier version made the folder with the permissions of the process's umask.
    """
    with contextlib.suppress(OSError):
        found = folder.stat()
        if os.name != "nt" and found.st_uid == os.geteuid() and found.st_mode & OTHERS_WRITE:
            folder.chmod(found.st_mode & ~OTHERS_WRITE)
            for path in folder.iterdir():
                if path.is_file() or path.is_symlink():
                    path.unlink()
            warnings.warn(f"other users could write into {folder}, from which compiled kernels are "
                          "run. It is now closed to them, and kernels are compiled again",
                          stacklevel=3)


def _intact(folder: Path, key: str, suffix: str) -> Path | None:
    """Returns a file for this key that only its user could write and that has its name's digest.

    Other files for this key are deleted. Returns None if no file is left.
    """
    for path in sorted(folder.glob(f"{key[:DIGITS]}-*{suffix}")):
        try:
            if (_is_private(path)
                    and path.name == f"{key[:DIGITS]}-{_content_digest(path)}{suffix}"):
                return path
            path.unlink()
        except OSError:   # another process deleted it first, or this one cannot: skip it
            continue
    return None


def _is_private(path: Path) -> bool:
    found = path.lstat()
    if os.name == "nt":
        return stat.S_ISREG(found.st_mode)
    is_trusted = found.st_uid in (os.geteuid(), 0) and not found.st_mode & OTHERS_WRITE
    return stat.S_ISREG(found.st_mode) and is_trusted


def _content_digest(path: Path) -> str:
    return digest(path.read_bytes())[:DIGITS]


@functools.cache
def _scratch_of_this_process(is_program: bool) -> tempfile.TemporaryDirectory:
    places = [tempfile.gettempdir(), "/var/tmp", "/dev/shm"]
    for place in places if is_program else places[:1]:
        with contextlib.suppress(OSError):
            if not is_program or not forbids_programs(Path(place)):
                return tempfile.TemporaryDirectory(dir=place, prefix="llama_from_scratch-kernels-")
    raise RuntimeError("compiled kernels need a folder that can be written and from which programs "
                       f"may run; none of {', '.join(places)} is one. {CURE}")


@functools.cache   # so that the warning comes once for each folder
def _folder_of_this_process(refused: Path, reason: str, is_program: bool) -> Path:
    temporary = Path(_scratch_of_this_process(is_program).name)
    warnings.warn(f"compiled kernels cannot be kept in {refused} ({reason}). They go to "
                  f"{temporary} and are compiled again in every process. {CURE}, to compile them "
                  "only once", stacklevel=4)
    return temporary
