"""How this project writes a file whole, hashes, and lets one process at a time change something.

A reader of any file written here finds the old content or the new, never a part of either. Whole
folders are replaced by `checkpoint.folders`. What is kept under the digest of its own content
(compiled kernels, minis) is renamed where it is made, because processes may make it at once.
"""

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing_file(path: str | os.PathLike) -> Iterator[Path]:
    """A path to write to, which becomes `path` in one step when the block ends well.

    Its bytes reach the disk before that.
    On an error nothing is left, and the file that was there stays as it was. The folder must exist.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        yield unfinished
        sync(unfinished)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Forces a file, or the list of names in a folder, to the disk.

    A rename may get there before the bytes do.
    """
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(*parts: str | bytes) -> str:
    """SHA-256 of a list of texts: 64 hexadecimal digits.

    Each part is hashed after its length, so that no two lists run together into the same bytes.
    """
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()


@contextlib.contextmanager
def locked(path: str | os.PathLike) -> Iterator[None]:
    """Holds `path` + ".lock", so that one process at a time runs the block.

    The system ends the lock with the process.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "a+b") as lock:
        if sys.platform == "win32":
            import msvcrt

            lock.seek(0)
            msvcrt.locking(lock.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
