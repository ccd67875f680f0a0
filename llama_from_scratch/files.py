"""Replaces files as a whole, computes hashes, and lets only one process at a time change something.

A reader of a file that is written here finds the old content or the new, never a part of either.
Whole folders are replaced by `checkpoint.folders`. Things that are stored under the digest of their
own content (compiled kernels, minis) are made in a `scratch_folder` and then renamed, because
several processes may make the same one at once.
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
"""The error numbers of a file system without locks."""
_MINE: contextvars.ContextVar[frozenset[Path]] = contextvars.ContextVar("mine", default=frozenset())
"""The lock files that this thread holds. A save during a run happens inside the run's own lock."""


@contextlib.contextmanager
def replacing_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a path to write to, which becomes `path` in one step when the block ends well.

    The bytes reach the disk before that. A link stays a link, and its target is replaced. After an
    error the old file is unchanged and no new file is left. The folder must exist. Another process
    that replaces the same file waits. Remains of a killed process are overwritten.
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
            # A second error must not hide the first.
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise


def real(path: str | os.PathLike) -> Path:
    """Returns the absolute path with every link followed, so that a rename never replaces a link.

    The path stays valid if the current folder changes. Raises ValueError for a link that leads to
    itself, or into a folder that does not exist, such as one on a disk that is not mounted.
    """
    path = Path(os.path.abspath(path))
    for part in (path, *path.parents):
        if os.path.islink(part) and not os.path.exists(part):
            target = Path(os.path.realpath(part))
            if target.is_symlink() or not target.parent.is_dir():
                raise ValueError(f"a link must lead into a folder that exists; {part} leads to "
                                 f"{os.readlink(part)}, in a folder that is not there. Mount its "
                                 "disk, create the folder, or remove the link")
    return Path(os.path.realpath(path))


def sync(path: Path) -> None:
    """Forces a file, or the list of names in a folder, to the disk.

    Without this, a rename may reach the disk before the bytes of the file.
    """
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network disks can sync files but not folders.
        if not (is_folder and error.errno in _NO_LOCKS):
            raise
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Removes a file, a link or a whole folder, as far as the disk allows.

    Remains do no harm: the next call removes them.
    """
    with contextlib.suppress(OSError):
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=True)


def digest(*parts: str | bytes) -> str:
    """Returns the SHA-256 of a list of texts: 64 hexadecimal digits.

    The length of each part is hashed before the part, so that two different lists never become the
    same bytes.
    """
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()


def checksum(path: Path) -> str:
    """Returns the CRC-32 of a file's bytes: 8 hexadecimal digits.

    It detects damage, such as any one flipped bit, but not forgery. It takes less than half the
    time of SHA-256.
    """
    with open(path, "rb", buffering=0) as opened:
        return checksum_of(opened)


def checksum_of(opened: io.RawIOBase | io.BufferedIOBase) -> str:
    """Returns the `checksum` of the bytes that are left to read in an open file."""
    total, piece = 0, memoryview(bytearray(_PIECE_BYTES))
    while n := opened.readinto(piece):
        total = zlib.crc32(piece[:n], total)
    return f"{total:08x}"


@contextlib.contextmanager
def locked(path: str | os.PathLike, *, waits: bool = True) -> Iterator[None]:
    """Holds the lock of `path`, so that only one process at a time runs the block.

    The lock is on the file `.NAME.lock` in the same folder. It names the process that holds the
    lock, and is removed when the block ends. The system releases the lock when the process ends,
    for whatever reason. The same thread may enter again. On a file system without locks, it warns
    and continues.
    Raises ValueError, naming the holder, if another process has the lock and `waits` is False.
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
        raise ValueError(f"only one process at a time may write {path}; {_holder(lock)} does now. "
                         "Wait until it ends, stop it, or choose another name") from error
    token = _MINE.set(_MINE.get() | {lock})
    try:
        with contextlib.suppress(OSError):  # a full disk; the name of the holder is only for people
            held.truncate(0)
            held.write(_about_this_process().encode())
            held.flush()
        yield
    finally:
        _MINE.reset(token)
        _release(held, lock)


@contextlib.contextmanager
def scratch_folder(parent: Path, *, prefix: str = "building-") -> Iterator[Path]:
    """Yields a new folder in `parent` that is removed when the block ends.

    Before that, it removes the folders that killed processes left in `parent`. Each folder holds a
    file that is locked while its process runs, so a folder whose file can be locked is unused.
    """
    # The lock keeps another process from removing our folder before we lock our file in it.
    with locked(parent / prefix.rstrip("-")):
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
    # If the file cannot be locked, its process may still be running.
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
    """Returns the open lock file, locked.

    Raises BlockingIOError if another process has the lock and `waits` is False.
    """
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
                              "so nothing keeps two processes from writing there at once; make "
                              "sure that only one does", stacklevel=5)
            return file
        # The process that held the lock may have removed the file that we waited for. A third
        # process would then lock a new file of the same name.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                return file
        file.close()


def _lock(file: BinaryIO, *, waits: bool) -> None:
    if sys.platform == "win32":
        import msvcrt

        file.seek(1 << 30)  # far from the text of the file, which other processes read
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if waits else msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(*error.args) from error
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))


def _release(file: BinaryIO, lock: Path) -> None:
    """Removes the file while it is locked, so that no process loses a lock on it, and unlocks it.

    Windows removes only closed files, and no file that another process has open.
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
    """Returns who holds a lock, as words for an error message.

    Another program may have written the file, so only printable characters are shown.
    """
    try:
        told = lock.read_text(encoding="utf-8", errors="replace")[:200]
    except OSError:
        told = ""
    return "".join(c for c in told if c.isprintable()) or "another one"


def user_cache() -> Path:
    """Returns the folder `llama_from_scratch` in the user's cache, for files that can be remade.

    The user's cache is $XDG_CACHE_HOME if that is an absolute path, otherwise ~/.cache, and for a
    user without a home folder the temporary folder. The folder need not exist.
    """
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(chosen):
        return Path(chosen) / "llama_from_scratch"
    try:
        return Path.home().absolute() / ".cache" / "llama_from_scratch"
    except RuntimeError:  # no HOME and a user id without an entry, as in some containers
        return Path(tempfile.gettempdir()) / f"llama_from_scratch-{os.getuid()}"
