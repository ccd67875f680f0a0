"""Folders that are kept between calls, each under a digest of everything that it was made from.

A folder's name has two digests, the key's and that of its files. So a change of anything that it
was made from asks for another folder, and one whose files were damaged is removed.
"""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from llama_from_scratch.files import digest, scratch_folder

_DIGITS = 32


def key_of(*parts: str) -> str:
    """The key of a folder that is made from these texts."""
    return digest(*parts)[:_DIGITS]


def find(cache: Path, key: str) -> Path | None:
    """The folder for a key whose files are those that its name promises, or None.

    One whose files are not is removed.
    """
    for folder in sorted(cache.glob(f"{key}-*")):
        # If another process removed it first, it is as if it were not there.
        with contextlib.suppress(OSError):
            if folder.name == f"{key}-{_content(folder)}":
                return folder
        shutil.rmtree(folder, ignore_errors=True)
    return None


def keep(cache: Path, key: str, *, make: Callable[[Path], None]) -> None:
    """Keeps under `key` the folder that `make(path)` writes. Raises OSError where the disk refuses.

    Several processes may do so at once: each writes a folder of its own and then renames it to the
    same name, or leaves that of the first one. What a killed process left half made goes first.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with scratch_folder(cache) as scratch:
        made = scratch / "made"
        make(made)
        final = cache / f"{key}-{_content(made)}"
        if not final.exists():
            os.rename(made, final)


def _content(folder: Path) -> str:
    files = sorted(folder.iterdir())
    return digest(*(part for file in files for part in (file.name, file.read_bytes())))[:_DIGITS]
