"""How this project writes a file whole, hashes, and lets one process at a time change something.

A reader of any file written here finds the old content or the new, never a part of either. Whole
folders are replaced by `checkpoint.folders`. What is kept under the digest of its own content
(compiled kernels, minis) is renamed where it is made, because processes may make it at once.
"""

import contextlib
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
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


def user_cache() -> Path:
    """The folder for what this project can make again: `llama_from_scratch` in the user's cache.

    That is in $XDG_CACHE_HOME if it is an absolute path, else in ~/.cache; for a user without a
    home folder, in the temporary folder. It need not exist.
    """
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(chosen):
        return Path(chosen) / "llama_from_scratch"
    try:
        return Path.home().absolute() / ".cache" / "llama_from_scratch"
    except RuntimeError:  # no HOME, and a user id that no file knows, as in some containers
        return Path(tempfile.gettempdir()) / f"llama_from_scratch-{os.getuid()}"


@contextlib.contextmanager
def sharing(folder: Path, *, alone: Callable[[], object]) -> Iterator[None]:
    """Holds a folder together with other processes while the block runs.

    A process that comes while no other holds it first calls `alone`, which may remove what others
    left when they were killed: the system ends their hold. Where folders cannot be held (Windows,
    some network disks), `alone` is never called.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone()
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)
