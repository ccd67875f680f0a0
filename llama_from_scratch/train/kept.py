"""Folders that are kept between calls, each named by a digest of everything it was made from.

A folder's name has two digests: the key, and the digest of its files. If anything that it was made
from changes, the key is another one. A folder with damaged files is removed.
"""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from llama_from_scratch.files import digest, scratch_folder

_DIGITS = 32


def key_of(*parts: str) -> str:
    """Returns the key of a folder that is made from these texts."""
    return digest(*parts)[:_DIGITS]


def find(cache: Path, key: str) -> Path | None:
    """Returns the folder for a key if its files have the digest in its name, otherwise None.

    A folder with other files is removed.
    """
    for folder in sorted(cache.glob(f"{key}-*")):
        # Another process may remove it first.
        with contextlib.suppress(OSError):
            if folder.name == f"{key}-{_content(folder)}":
                return folder
        shutil.rmtree(folder, ignore_errors=True)
    return None


def keep(cache: Path, key: str, *, make: Callable[[Path], None]) -> None:
    """Keeps the folder that `make(path)` writes under `key`. Raises OSError if that fails.

    Several processes may do so at once. Each writes a folder of its own and then renames it, unless
    another process has kept its folder first. What a killed process left behind is removed first.
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
