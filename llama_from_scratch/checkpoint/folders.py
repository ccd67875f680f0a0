"""A folder that changes as a whole: readers find the old one or the new one.

The new folder is written as a sibling to the end and forced to the disk, and only then takes the
old one's place. A kill or a full disk at any moment loses the new folder and never the old.

Notebook 17.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from llama_from_scratch.files import sync


@contextlib.contextmanager
def replacing_folder(folder: str | Path, *, refuse: Callable[[Path], None]) -> Iterator[Path]:
    """An empty folder to write to, which takes the place of `folder` when the block ends well.

    On an error it is removed. Two renames do it: the old folder aside, the new one in. A kill
    between them leaves the old one aside, where `find` and the next save find it. `refuse(folder)`:
    raises ValueError if the folder that is there may not be replaced, which removes it whole.
    Raises ValueError if `folder` is a file.
    """
    folder = Path(folder).absolute()
    unfinished, aside = folder.with_name(f".{folder.name}.unfinished"), _aside(folder)
    if aside.exists() and not folder.exists():
        os.rename(aside, folder)
    if folder.exists():
        if not folder.is_dir():
            raise ValueError(f"a checkpoint is a folder, and {folder} is a file; choose another "
                             "name")
        refuse(folder)
    _remove(unfinished)
    _remove(aside)
    unfinished.mkdir(parents=True)
    try:
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
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    sync(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def creating_folder(folder: str | Path) -> Iterator[Path]:
    """An empty folder to write to, which becomes `folder` when the block ends well.

    On an error nothing is left. Raises ValueError if `folder` is there and holds anything.
    """
    with replacing_folder(folder, refuse=_refuse_any_content) as unfinished:
        yield unfinished


def find(folder: str | Path) -> Path | None:
    """Where the checkpoint of `folder` is: there, aside after a killed save, or None."""
    folder = Path(folder).absolute()
    return next((path for path in (folder, _aside(folder)) if (path / "config.json").is_file()),
                None)


def _refuse_any_content(folder: Path) -> None:
    if any(folder.iterdir()):
        raise ValueError(f"this checkpoint is written to a new folder, and {folder} holds files; "
                         "choose another name")


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
