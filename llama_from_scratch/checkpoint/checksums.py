"""Checksums of a checkpoint's files from the time when it was saved, to detect flipped bits.

checksums.json: {"config.json": CRC-32 of its bytes, ...}. A CRC detects every single flipped bit
and every damaged run of up to 32 bits, but not forgery. During loading it takes a third of the time
of SHA-256.

Notebook 17.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from llama_from_scratch.checkpoint.json_file import read_json, write_json
from llama_from_scratch.files import checksum, checksum_of
from llama_from_scratch.foreign import opened

NAME = "checksums.json"


def write(folder: Path, *, known: Mapping[str, str] = MappingProxyType({})) -> None:
    """Writes the checksums of all files in a folder. Files with a `known` one are not read."""
    files = [file for file in sorted(folder.iterdir()) if file.name != NAME]
    write_json(folder / NAME, {file.name: known[file.name] if file.name in known
                               else checksum(file) for file in files})


def read(folder: Path) -> dict[str, str] | None:
    """Returns the checksums of a folder by file name; None if an earlier version saved the folder.

    Raises ValueError if the list itself is damaged.
    """
    file = folder / NAME
    if not os.path.lexists(file):
        return None
    found = read_json(file)
    if not isinstance(found, dict) or not all(
        re.fullmatch("[0-9a-f]{8}", str(value)) for value in found.values()
    ):
        raise ValueError(f"{NAME} must have the 8 digits of a CRC-32 for each file; {file} does "
                         "not. Copy or save the checkpoint again, or delete that file if the "
                         "others are intact")
    return found


def refuse_damage(file: Path, known: Mapping[str, str] | None) -> None:
    """Raises ValueError if a file is damaged, or was replaced after `known` was read.

    `known`: None means that there are no checksums; then nothing is read.
    """
    if known is None:
        return
    with opened(file, need="a checkpoint needs a file", may_be_empty=True) as source:
        try:
            found = checksum_of(source)
        except OSError as error:
            raise ValueError(f"a checkpoint needs a file at {file}; it cannot be read ({error}). "
                             "Copy or save the checkpoint again") from error
    if found == known.get(file.name):
        return
    if read(file.parent) != known:
        raise ValueError("all files of a checkpoint must be from the same save; "
                         f"{file.parent} was replaced by a newer one meanwhile. Load it again")
    raise ValueError(f"the files of a checkpoint must be those that were saved; {file} is damaged: "
                     f"its CRC-32 is {found}, and {NAME} says {known.get(file.name, 'nothing')}. "
                     "Copy or save the checkpoint again; if you changed the file on purpose, "
                     f"delete {NAME}")
