"""Replaces a folder as a whole, so that readers find either the old folder or the new one.

The new folder is first written completely in the same parent folder and forced to the disk. Only
then does it take the place of the old one. If the process is killed or the disk is full at any
moment, the new folder is lost but never the old one. Only one process at a time writes to a folder.
Readers never wait.

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
"""The error numbers for a place where this user cannot write; a full disk is not among them."""


@contextlib.contextmanager
def held(folder: str | Path) -> Iterator[Path]:
    """Yields the real path of `folder`, to which no other process writes until the block ends.

    It checks everything that `replacing_folder` needs to write there.
    Raises ValueError if another process holds it, or a folder cannot be written and renamed there.
    """
    with _entered(folder) as folder:
        with _place_refused(folder):
            _refuse_what_cannot_be_renamed(folder)
        yield folder


@contextlib.contextmanager
def replacing_folder(folder: str | Path, *, refuse: Callable[[Path], None]) -> Iterator[Path]:
    """Yields an empty folder to write to, which replaces `folder` when the block ends well.

    After an error it is removed. The replacement is two renames: the old folder to another name,
    and the new one to `folder`. After a kill between them, `find` and the next save find the old
    folder under that other name. A link to the folder stays a link. The new folder has the group
    and the permissions of the old one. `refuse(folder)`: raises ValueError if the existing folder
    must not be replaced, because replacing deletes all of it. Raises ValueError as `held` does.
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

    After an error nothing is left. Raises ValueError if `folder` exists and is not empty.
    """
    with replacing_folder(folder, refuse=_refuse_any_content) as unfinished:
        yield unfinished


def find(folder: str | Path, *, file: str = "config.json") -> Path | None:
    """Returns the path of a checkpoint: `folder`, its other name after a killed save, or None.

    `file`: what the folder of a checkpoint holds.
    """
    folder = Path(os.path.realpath(folder))
    places = [folder, _aside(folder)] if folder.name else [folder]  # the root has no other name
    return next((path for path in places
                 if os.path.isfile(path / file)), None)


@contextlib.contextmanager
def _entered(folder: str | Path) -> Iterator[Path]:
    """Yields the real path of `folder`, locked and without remains of killed saves.

    Links are followed only here. Missing parents are created; if nothing is written to them, they
    are removed when the block ends.
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
            with contextlib.suppress(OSError):  # it is in use, or was not created
                parent.rmdir()


def _tidy(folder: Path) -> None:
    """Renames an old folder back that a killed save left, and removes all other remains.

    No other process writes here now, so anything unfinished can be removed.
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
            raise OSError(f"{path} remains from an earlier save and cannot be removed")


def _discard(aside: Path, unfinished: Path) -> None:
    """Removes the old folder as far as the disk allows, without an error after a good save.

    It is renamed first, because the removal may be incomplete, and no reader uses the new name.
    """
    if os.path.lexists(aside):
        with contextlib.suppress(OSError):
            os.rename(aside, unfinished)
        remove(unfinished)


def _give_permissions(old: Path, new: Path) -> None:
    """Gives `new` the group and permissions of `old`; the owner can always write."""
    known = old.stat()
    with contextlib.suppress(OSError, AttributeError):  # a group we are not in; Windows
        if known.st_gid != new.stat().st_gid:
            os.chown(new, -1, known.st_gid)
    with contextlib.suppress(OSError):
        os.chmod(new, (known.st_mode & 0o7777) | 0o700)


def _refuse_what_is_no_folder(folder: Path) -> None:
    if os.path.isfile(folder):
        raise ValueError(f"a checkpoint must be a folder; {folder} is a file. Choose another name")
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise ValueError(f"a checkpoint must be a folder inside folders; {there} is a file, so "
                         f"{folder} cannot be created. Choose another name")
    if os.path.exists(folder) and os.path.samefile(folder, os.curdir):
        raise ValueError(f"saving replaces a folder by renaming it; {folder} is the folder that "
                         "this program runs in. Name a folder inside it, such as "
                         f"{folder / 'run'}, or start the program in another folder")
    if os.path.ismount(folder):
        raise ValueError(f"saving replaces a folder by renaming it; {folder} cannot be renamed, "
                         "because a disk is mounted there. Name a folder inside it, such as "
                         f"{folder / 'run'}")


def _refuse_what_cannot_be_renamed(folder: Path) -> None:
    """Raises OSError if the folder cannot be renamed and back, or no new folder can be created."""
    unfinished, aside = _unfinished(folder), _aside(folder)
    unfinished.mkdir()
    unfinished.rmdir()
    if folder.exists():
        os.rename(folder, aside)
        os.rename(aside, folder)


@contextlib.contextmanager
def _place_refused(folder: Path) -> Iterator[None]:
    """Turns an OSError of a place where nothing can be written into a ValueError with a cure."""
    try:
        yield
    except OSError as error:
        if error.errno not in _WRONG_PLACE:
            raise
        inside = f", such as {folder / 'run'}" if os.path.exists(folder) else ""
        raise ValueError("a checkpoint is written under another name and then renamed, so you need "
                         f"the right to create and rename folders in {folder.parent}; {error}. "
                         f"Change its permissions, or choose another place{inside}") from error


def _refuse_any_content(folder: Path) -> None:
    if any(folder.iterdir()):
        raise ValueError(f"this checkpoint must be written to a new folder; {folder} holds files. "
                         "Choose another name")


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def _unfinished(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.unfinished")
