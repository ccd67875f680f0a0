"""How this project writes a file whole, hashes, and lets one process at a time change something.

A reader of any file written here finds the old content or the new, never a part of either. Whole
folders are replaced by `checkpoint.folders`. What is kept under the digest of its own content
(compiled kernels, minis) is made in a `scratch_folder` and renamed, because processes may make it
at once.
"""

import contextlib
import contextvars
import errno
import hashlib
import io
import os
import shutil
import socket
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_PIECE_BYTES = 1 << 20
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
"""What a file system without locks answers."""
_MINE: contextvars.ContextVar[frozenset[Path]] = contextvars.ContextVar("mine", default=frozenset())
"""The lock files that this thread holds: a save during a run is inside the run's own lock."""


@contextlib.contextmanager
def replacing_file(path: str | os.PathLike) -> Iterator[Path]:
    """A path to write to, which becomes `path` in one step when the block ends well.

    Its bytes reach the disk before that. A link stays, and what it leads to is replaced.
    On an error nothing is left, and the file that was there stays as it was. The folder must exist.
    Another process that replaces the same file waits; what a killed one left is written over.
    """
    path = real(path)
    unfinished = path.with_name(f".{path.name}.unfinished")
    os.stat(path.parent)
    with locked(path):
        try:
            yield unfinished
            sync(unfinished)
            os.replace(unfinished, path)
        except BaseException:
            # A second fault must not hide the first.
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise


def real(path: str | os.PathLike) -> Path:
    """The absolute path with every link followed, so that what is renamed is never a link.

    It holds after a change of the current folder. Raises ValueError for a link that leads to
    itself, or into a folder that is not there, such as one on a disk that is not mounted.
    """
    path = Path(os.path.abspath(path))
    for part in (path, *path.parents):
        if os.path.islink(part) and not os.path.exists(part):
            target = Path(os.path.realpath(part))
            if target.is_symlink() or not target.parent.is_dir():
                raise ValueError(f"a link must lead to a place that can be written; {part} leads "
                                 f"to {os.readlink(part)}, in a folder that is not there. Mount "
                                 "its disk, or make the folder, or remove the link")
    return Path(os.path.realpath(path))


def sync(path: Path) -> None:
    """Forces a file, or the list of names in a folder, to the disk.

    A rename may get there before the bytes do.
    """
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network disks force files only, and say so.
        if not (is_folder and error.errno in _NO_LOCKS):
            raise
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Removes a file, a link or a whole folder, as far as the disk lets it.

    What stays does no harm: it is removed the next time.
    """
    with contextlib.suppress(OSError):
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=True)


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


def checksum(path: Path) -> str:
    """CRC-32 of a file's bytes, 8 hexadecimal digits: against damage, not against forgery.

    Any one flipped bit changes it, and it takes less than half the time of SHA-256.
    """
    with open(path, "rb", buffering=0) as opened:
        return checksum_of(opened)


def checksum_of(opened: io.RawIOBase | io.BufferedIOBase) -> str:
    """The `checksum` of what is left to read in an open file."""
    total, piece = 0, memoryview(bytearray(_PIECE_BYTES))
    while n := opened.readinto(piece):
        total = zlib.crc32(piece[:n], total)
    return f"{total:08x}"


@contextlib.contextmanager
def locked(path: str | os.PathLike, *, waits: bool = True) -> Iterator[None]:
    """Holds the lock of `path`, so that one process at a time runs the block.

    The lock is on a file beside it, `.NAME.lock`, that says who holds it and goes with the block.
    The system ends the lock with the process, whatever ends the process. The same thread may enter
    again. Where the file system has no locks, warns and goes on.
    Raises ValueError, naming the holder, if another one has it and `waits` is False.
    """
    path = Path(os.path.realpath(path))
    lock = path.with_name(f".{path.name}.lock")
    if lock in _MINE.get():
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = _open_locked(lock, waits=waits)
    except BlockingIOError as error:
        raise ValueError(f"one process at a time writes {path}; {_holder(lock)} does now. Wait "
                         "until it ends, stop it, or choose another name") from error
    token = _MINE.set(_MINE.get() | {lock})
    try:
        with contextlib.suppress(OSError):  # a full disk; who holds it is for people alone
            held.truncate(0)
            held.write(_about_this_process().encode())
            held.flush()
        yield
    finally:
        _MINE.reset(token)
        _release(held, lock)


@contextlib.contextmanager
def scratch_folder(parent: Path, *, prefix: str = "building-") -> Iterator[Path]:
    """A new folder in `parent` that goes with the block.

    Those that killed processes left in `parent` go first. Each holds a locked file while its
    process lives, so one whose file can be locked is dead.
    """
    with locked(parent / prefix.rstrip("-")):  # or another would take ours for dead before it locks
        for left in parent.glob(f"{prefix}*"):
            _remove_if_dead(left)
        scratch = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        lock = _open_locked(scratch / ".alive", waits=True, is_told=False)
    try:
        yield scratch
    finally:
        _release(lock, scratch / ".alive")
        remove(scratch)


def _remove_if_dead(folder: Path) -> None:
    # Where it cannot be locked, its process may live, or that cannot be known.
    with contextlib.suppress(OSError):
        file = open(folder / ".alive", "a+b")  # noqa: SIM115
        try:
            _lock(file, waits=False)
        except OSError:
            file.close()
            return
        file.close()
        remove(folder)


def _open_locked(lock: Path, *, waits: bool, is_told: bool = True) -> BinaryIO:
    """The file, locked. Raises BlockingIOError if another has it and `waits` is False."""
    while True:
        file = open(lock, "a+b")  # noqa: SIM115
        try:
            _lock(file, waits=waits)
        except BlockingIOError:
            file.close()
            raise
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                file.close()
                raise
            if is_told:
                warnings.warn(f"the file system of {lock.parent} has no locks ({error.strerror}), "
                              "so nothing keeps two processes from writing there at once; see "
                              "that only one does", stacklevel=5)
            return file
        # The one who had it may have removed the file that we waited for; a third would lock a new
        # one of that name.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                return file
        file.close()


def _lock(file: BinaryIO, *, waits: bool) -> None:
    if sys.platform == "win32":
        import msvcrt

        file.seek(1 << 30)  # far from what the file says, which others read
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if waits else msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(*error.args) from error
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))


def _release(file: BinaryIO, lock: Path) -> None:
    """Removes the file while it is locked, so that nobody loses a lock on it; then ends the lock.

    Windows removes closed files alone, and none that another has open.
    """
    if sys.platform != "win32":
        remove(lock)
    with contextlib.suppress(OSError):
        file.close()
    if sys.platform == "win32":
        remove(lock)


def _about_this_process() -> str:
    began = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {socket.gethostname()}, since {began}"


def _holder(lock: Path) -> str:
    """Who holds a lock, in words. The file is a stranger's, so only plain characters are shown."""
    try:
        told = lock.read_text(encoding="utf-8", errors="replace")[:200]
    except OSError:
        told = ""
    return "".join(c for c in told if c.isprintable()) or "another one"


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
