"""A folder that changes as a whole: readers find the old one or the new one.

The new folder is written as a sibling to the end and forced to the disk, and only then takes the
old one's place. A kill or a full disk at any moment loses the new folder and never the old. One
process at a time writes to a folder; readers never wait.

Notebook 17.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from llama_from_scratch.files import locked, real, remove, sync

_WRONG_PLACE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV, errno.ENOTDIR,
                errno.ENAMETOOLONG, errno.EINVAL, errno.ENOENT}
"""What a system answers where this user cannot write. A full disk is not among them."""


@contextlib.contextmanager
def held(folder: str | Path) -> Iterator[Path]:
    """Yields the true place of `folder`, which no other process writes to until the block ends.

    Whatever would keep `replacing_folder` from writing there is found out now.
    Raises ValueError if another process holds it, or a folder cannot be written and renamed there.
    """
    with _entered(folder) as folder:
        with _place_refused(folder):
            _refuse_what_cannot_be_renamed(folder)
        yield folder


@contextlib.contextmanager
def replacing_folder(folder: str | Path, *, refuse: Callable[[Path], None]) -> Iterator[Path]:
    """An empty folder to write to, which takes the place of `folder` when the block ends well.

    On an error it is removed. Two renames do it: the old folder aside, the new one in. A kill
    between them leaves the old one aside, where `find` and the next save find it. A link to the
    folder stays a link, and the new folder has the owner and the permissions of the old one.
    `refuse(folder)`: raises ValueError if the folder that is there may not be replaced, which
    removes it whole. Raises ValueError as `held` does.
    """
    with _entered(folder) as folder:
        if folder.exists():
            refuse(folder)
        unfinished, aside = _unfinished(folder), _aside(folder)
        unfinished.mkdir()
        try:
            if folder.exists():
                _give_permissions(folder, unfinished)
            yield unfinished
            for path in unfinished.iterdir():
                sync(path)
            sync(unfinished)
            if folder.exists():
                os.rename(folder, aside)
            try:
                os.rename(unfinished, folder)
            except BaseException:
                if aside.exists():
                    os.rename(aside, folder)
                raise
        except BaseException:
            remove(unfinished)
            raise
        sync(folder.parent)
        _discard(aside, unfinished)


@contextlib.contextmanager
def creating_folder(folder: str | Path) -> Iterator[Path]:
    """Yields an empty folder to write to, which becomes `folder` when the block ends well.

    On an error nothing is left. Raises ValueError if `folder` is there and holds anything.
    """
    with replacing_folder(folder, refuse=_refuse_any_content) as unfinished:
        yield unfinished


def find(folder: str | Path) -> Path | None:
    """Returns where the checkpoint of `folder` is: there, aside after a killed save, or None."""
    folder = Path(os.path.realpath(folder))
    places = [folder, _aside(folder)] if folder.name else [folder]  # nothing is beside the root
    return next((path for path in places
                 if os.path.isfile(path / "config.json")), None)


@contextlib.contextmanager
def _entered(folder: str | Path) -> Iterator[Path]:
    """Yields the true place of `folder`, locked and tidied.

    Links are followed once, here. Parents that are missing are made; if nothing is written to them,
    they go with the block.
    """
    folder = real(folder)
    _refuse_what_is_no_folder(folder)
    missing = [parent for parent in folder.parents if not os.path.exists(parent)]
    try:
        with contextlib.ExitStack() as stack:
            with _place_refused(folder):
                folder.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(folder, waits=False))
                _tidy(folder)
            yield folder
    finally:
        for parent in missing:
            with contextlib.suppress(OSError):  # it is in use, or was not made
                parent.rmdir()


def _tidy(folder: Path) -> None:
    """Puts back what a kill left aside, and removes what a kill or a fault left for good.

    No other process writes here now, so whatever is half written can go.
    """
    unfinished, aside = _unfinished(folder), _aside(folder)
    remove(unfinished)
    if aside.is_symlink():  # earlier versions renamed links
        remove(aside)
    elif aside.exists() and not folder.exists():
        os.rename(aside, folder)
    else:
        _discard(aside, unfinished)
    for path in (unfinished, aside):
        if os.path.lexists(path):
            raise OSError(f"{path} is left of an earlier save and cannot be removed")


def _discard(aside: Path, unfinished: Path) -> None:
    """Removes the old folder as far as the disk lets it; never fails a save that succeeded.

    It is renamed first, because only a part of it may go, and no reader looks for the new name.
    """
    if os.path.lexists(aside):
        with contextlib.suppress(OSError):
            os.rename(aside, unfinished)
        remove(unfinished)


def _give_permissions(old: Path, new: Path) -> None:
    """Who may read and write, and the group; the owner keeps what is needed to write now."""
    known = old.stat()
    with contextlib.suppress(OSError, AttributeError):  # a group we are not in; Windows
        if known.st_gid != new.stat().st_gid:
            os.chown(new, -1, known.st_gid)
    with contextlib.suppress(OSError):
        os.chmod(new, (known.st_mode & 0o7777) | 0o700)


def _refuse_what_is_no_folder(folder: Path) -> None:
    if os.path.isfile(folder):
        raise ValueError(f"a checkpoint is a folder, and {folder} is a file; choose another name")
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise ValueError(f"a checkpoint is a folder inside folders, and {there} is a file, so "
                         f"{folder} cannot be made; choose another name")
    if os.path.exists(folder) and os.path.samefile(folder, os.curdir):
        raise ValueError(f"saving replaces a folder by renaming it, and {folder} is the one this "
                         "program runs in. Name a folder inside it, such as "
                         f"{folder / 'run'}, or start from elsewhere")
    if os.path.ismount(folder):
        raise ValueError(f"saving replaces a folder by renaming it, and {folder} is where a disk "
                         "is mounted, which has a fixed name. Name a folder inside it, such as "
                         f"{folder / 'run'}")


def _refuse_what_cannot_be_renamed(folder: Path) -> None:
    """Raises OSError if the folder that is there cannot be renamed and back, or none made there."""
    unfinished, aside = _unfinished(folder), _aside(folder)
    unfinished.mkdir()
    unfinished.rmdir()
    if folder.exists():
        os.rename(folder, aside)
        os.rename(aside, folder)


@contextlib.contextmanager
def _place_refused(folder: Path) -> Iterator[None]:
    """Says in words what a system answers where nothing can be written, whatever is free there."""
    try:
        yield
    except OSError as error:
        if error.errno not in _WRONG_PLACE:
            raise
        inside = f", such as {folder / 'run'}" if os.path.exists(folder) else ""
        raise ValueError("a checkpoint is written beside its place and then renamed, so a folder "
                         f"must be made and renamed in {folder.parent}; {error}. Change its "
                         f"permissions, or choose another place{inside}") from error


def _refuse_any_content(folder: Path) -> None:
    if any(folder.iterdir()):
        raise ValueError(f"this checkpoint is written to a new folder, and {folder} holds files; "
                         "choose another name")


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def _unfinished(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.unfinished")
