"""Compiled kernels on disk, so that each is built once and not at every start.

A file's name carries two digests: of all that went into it (source, headers, flags, compiler) and
of its own bytes. The first makes a stale hit impossible; the second shows a truncated or foreign
file before anything loads it. A file appears under its name in one step, complete, so processes
that compile the same thing at once need no lock.

Notebook 30.
"""

import contextlib
import functools
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from llama_from_scratch.files import digest, scratch_folder

DIGITS = 32  # hexadecimal, of either digest in a file's name: 128 bits


def default_folder() -> Path:
    """Where compiled kernels are kept unless a caller names another folder."""
    return Path.home() / ".cache" / "llama_from_scratch" / "kernels"


def cached_file(
    key: str, *, suffix: str, make: Callable[[Path], object], folder: Path | None = None
) -> Path:
    """The file that `make` writes to a path; made only if the folder holds none for this key.

    `make` works in a scratch folder of its own, so whatever else it leaves there goes away, and
    what a killed process left of its own goes before the next file is made. Its
    exceptions pass through, and leave nothing behind. A folder that cannot be written is replaced
    by a temporary one of this process, with one warning.
    """
    folder = default_folder() if folder is None else folder
    if found := _intact(folder, key, suffix):
        return found
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            scratch = stack.enter_context(scratch_folder(folder))
        except OSError as error:
            folder = _folder_of_this_process(folder, str(error))
            if found := _intact(folder, key, suffix):
                return found
            scratch = stack.enter_context(scratch_folder(folder))
        made = scratch / f"{key[:DIGITS]}{suffix}"
        make(made)
        final = folder / f"{key[:DIGITS]}-{_content_digest(made)}{suffix}"
        # Not files.replacing_file, whose unfinished file has one name for all processes. Nor need
        # the bytes be on the disk already: a file that a crash cut off is found out by its digest.
        os.replace(made, final)
    return final


def _intact(folder: Path, key: str, suffix: str) -> Path | None:
    """A file for this key with the bytes that its name promises; others are deleted."""
    for path in sorted(folder.glob(f"{key[:DIGITS]}-*{suffix}")):
        try:
            if path.name == f"{key[:DIGITS]}-{_content_digest(path)}{suffix}":
                return path
            path.unlink()
        except OSError:   # another process deleted it first, or we may not: as if it were not there
            continue
    return None


def _content_digest(path: Path) -> str:
    return digest(path.read_bytes())[:DIGITS]


@functools.cache
def _scratch_of_this_process() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="llama_from_scratch-kernels-")


@functools.cache   # so that the warning comes once for each folder
def _folder_of_this_process(refused: Path, reason: str) -> Path:
    temporary = Path(_scratch_of_this_process().name)
    warnings.warn(f"compiled kernels cannot be kept in {refused} ({reason}). They go to "
                  f"{temporary} and are compiled again in every process; make that folder writable "
                  "to compile them only once", stacklevel=3)
    return temporary
