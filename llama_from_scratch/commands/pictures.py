"""Reads the images that a user names: after --image, or in a chat after /image."""

import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from llama_from_scratch.commands import terminal


def read(paths: Sequence[str]) -> list:
    """Returns the images at these paths as Pillow images, upright and in RGB.

    A remark on an image, such as that only its first frame is used, goes to stderr. Raises
    ValueError for a file that is no image.
    """
    from llama_from_scratch.vision.images import decoded

    found = []
    for path in paths:
        with warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("always")
            found.append(decoded(os.path.expanduser(path)))
        for remark in remarks:
            print(terminal.shown_line(f"llama: {path}: {remark.message}"), file=sys.stderr)
    return found


def is_file(text: str) -> bool:
    """Returns whether a text is the path of a file; False if no path can be so."""
    try:
        return Path(text).expanduser().is_file()
    except (OSError, RuntimeError, ValueError):  # too long, an unknown ~user, a null character
        return False


def paths_in(text: str, *, is_windows: bool = os.name == "nt") -> list[str]:
    """Returns the paths in a text that was typed or dropped onto a terminal.

    A text that is the path of a file is one path, also with spaces. Otherwise spaces separate
    paths, and a path with spaces is quoted, or its spaces come after a backslash, as terminals
    write what is dropped onto them. An address that begins with file:// becomes a path.
    """
    if is_file(text):
        return [text]
    try:
        found = shlex.split(text, posix=not is_windows)
    except ValueError:  # an apostrophe in a name, which is not closed
        return [text]
    bare = [each.strip("\"'") for each in found] if is_windows else found
    return [unquote(urlsplit(each).path) if each.startswith("file://") else each for each in bare]
