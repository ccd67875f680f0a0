"""Reads files that other programs made, and reports everything that can be wrong with them.

A file may be missing, a folder, a pipe that never ends, a git-lfs pointer, cut short, or JSON that
is nested ten thousand levels deep. Each of these raises a ValueError with the file, the rule, what
was found and a cure. Only regular files are read, so that no read waits forever, and no more than
`MAX_BYTES` of a file are held in memory at once.

Notebook 18.
"""

import contextlib
import errno
import io
import json
import math
import os
import re
import reprlib
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_BYTES = 1 << 28
"""The size limit of a file that is read whole. No published tokenizer.json has a tenth of it."""
MAX_DEPTH = 100
"""How deep objects and lists may be nested in a JSON file."""
_MAX_DIGITS = 300
"""The most digits of a whole number in a JSON file, so that each number also fits into a float."""
_POINTER = b"version https://git-lfs.github.com/spec/v1"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
          stat.S_IFBLK: "a device"}


@contextlib.contextmanager
def opened(
    path: str | os.PathLike, *, need: str, may_be_empty: bool = False
) -> Iterator[io.BufferedReader]:
    """Yields the regular file at `path`, open for reading bytes.

    `need`: the beginning of an error message, such as "a checkpoint needs a GGUF file".
    Raises ValueError if the file is missing or empty, if you have no right to read it, or if there
    is a folder, a pipe, a device or a git-lfs pointer in its place.
    """
    try:
        file = open(path, "rb", opener=_at_once)  # noqa: SIM115, errors are reworded below
    except (OSError, ValueError) as error:
        raise _unopened(path, error, need=need) from error
    with file:
        about, where = os.fstat(file.fileno()), plain(path)
        if not stat.S_ISREG(about.st_mode):
            kind = _KINDS.get(stat.S_IFMT(about.st_mode), "something else")
            raise ValueError(f"{need} at {where}, a regular one; there is {kind}. Copy its "
                             "content to a file, and give the path of that file")
        if not about.st_size and not may_be_empty:
            raise ValueError(f"{need} at {where}; it cannot be read (it is empty). Copy or "
                             "download it again")
        if about.st_size < 1024 and _begin(file, len(_POINTER)) == _POINTER:
            raise ValueError(f"{need} at {where}; there is a git-lfs pointer, "
                             f"{about.st_size} bytes that name the real file. Run `git lfs pull` "
                             f"in {plain(Path(path).absolute().parent)}, or download the file "
                             "itself from the page of its repository")
        yield file


def read_bytes(path: str | os.PathLike, *, need: str) -> bytes:
    """Returns all bytes of a file. Raises ValueError as `opened` does, or above `MAX_BYTES`."""
    with opened(path, need=need) as file:
        n_bytes = os.fstat(file.fileno()).st_size
        if n_bytes > MAX_BYTES:
            raise ValueError(f"{need} at {plain(path)}, of at most {MAX_BYTES:,} bytes; there are "
                             f"{n_bytes:,}. Check that it is the right file")
        try:
            return file.read()
        except OSError as error:
            raise _unopened(path, error, need=need) from error


def read_json(path: str | os.PathLike, *, need: str) -> Any:
    """Returns the value in a JSON file. Raises ValueError if the file is missing or damaged."""
    data = read_bytes(path, need=need)
    try:
        return parse_json(data)
    except ValueError as error:
        raise ValueError(f"{need} at {plain(path)}; it cannot be read ({error}). Correct it, or "
                         "download or save it again") from error


def parse_json(data: bytes) -> Any:
    """Returns the value of a JSON text in UTF-8, with or without a byte-order mark.

    Raises ValueError also for input that Python's json would accept without a warning, or fail on
    with another error: a key given twice, NaN, Infinity, numbers too large for a float, deep
    nesting, half a surrogate pair.
    """
    text = decoded(data)
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant,
                           parse_float=_finite, parse_int=_whole)
    except RecursionError:
        value = None
    if (value is None and text.strip() != "null") or _is_too_deep(value):
        raise ValueError(f"objects and lists must be nested at most {MAX_DEPTH} deep, and these "
                         "are nested deeper")
    if _SURROGATE.search(text) and (bad := _lone_surrogate(value)) is not None:
        raise ValueError(f"text must consist of whole characters, and {shown(bad)} holds half of a "
                         "surrogate pair")
    return value


def decoded(data: bytes) -> str:
    """Returns bytes as text, without a byte-order mark. Raises ValueError if they are not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"text must be UTF-8, and byte {error.start} is 0x{data[error.start]:02x} "
                         f"({error.reason})") from None


def is_there(path: str | os.PathLike) -> bool:
    """Returns whether anything is at `path`, even a broken link.

    Raises ValueError where that cannot be found out: without the right to look, or for a name that
    no file can have.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise _unopened(path, error, need="this needs a file or a folder") from error
    return True


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Adds `path` to every ValueError of the block, in at most 1,500 printable characters.

    Code that reads a value deep inside a file does not know which file it is.
    """
    try:
        yield
    except ValueError as error:
        message, where = plain(error, max_chars=1500), plain(path)
        if where not in message:
            message = f"{where} cannot be read: {message}"
        if message != str(error) or type(error) is not ValueError:
            raise ValueError(message) from error
        raise


def shown(value: Any, *, max_chars: int = 80) -> str:
    """Returns a value as an error message shows it: short, on one line, no control characters."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = max_chars
    short.maxlevel = 3
    text = short.repr(value)
    return text if len(text) <= max_chars else text[: max_chars - 3] + "..."


def plain(text: object, *, max_chars: int = 400) -> str:
    """Returns a name or a path with all characters escaped that a terminal would not print."""
    text = str(text)
    if len(text) > max_chars:
        text = f"{text[: max_chars // 2]}...{text[-max_chars // 4 :]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _unopened(path: str | os.PathLike, error: OSError | ValueError, *, need: str) -> ValueError:
    """Returns the error to raise for a file that the system does not open."""
    if isinstance(error, ValueError):
        return ValueError(f"{need} at {shown(os.fspath(path))}; no path may hold such characters "
                          f"({error}). Check the spelling")
    if error.errno == errno.ENAMETOOLONG:
        longest = max(map(len, Path(path).parts))
        found, cure = ("a name in a path has at most 255 bytes, and the longest here has "
                       f"{longest} characters", "Check the spelling, or choose a shorter name")
    elif error.errno == errno.EISDIR:
        found, cure = ("there is a folder", "Give the path of a file in it, or put the file in its "
                       "place")
    elif error.errno in (errno.EACCES, errno.EPERM):
        found, cure = ("you have no right to read it", "Ask its owner, or change the rights of "
                       "it and of the folders above it with chmod")
    elif error.errno == errno.ENXIO:
        found, cure = ("there is a socket or a device", "Copy its content to a file, and give the "
                       "path of that file")
    elif error.errno == errno.ELOOP:
        found, cure = ("the links there lead in a circle", "Remove them, and copy or download it "
                       "again")
    elif os.path.islink(path):
        found, cure = (f"there is a link to {plain(os.readlink(path))}, where nothing is",
                       "Copy or download the file that it names, or remove the link")
    elif isinstance(error, (FileNotFoundError, NotADirectoryError)):
        found, cure = "it is missing", "Check the path, or copy or download it again"
    else:
        found, cure = (f"it cannot be read ({error.strerror})", "Check the disk, or copy or "
                       "download it again")
    return ValueError(f"{need} at {plain(path)}; {found}. {cure}")


def _at_once(path: str, flags: int) -> int:
    # A pipe without a writer would let a blocking open wait forever.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def _begin(file: io.BufferedReader, n_bytes: int) -> bytes:
    first = file.read(n_bytes)
    file.seek(0)
    return first


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object. For a key given twice, json would keep only the last value."""
    values = dict(pairs)
    if len(values) < len(pairs):
        (name, _), = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the name {shown(name)} occurs twice in one JSON object")
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"a number in JSON must be finite, and there is {name}")


def _finite(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(f"a number in JSON must be finite as a float, and there is {digits[:40]}")
    return value


def _whole(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a whole number may have at most {_MAX_DIGITS} digits, and there is one "
                         f"of {len(digits)}, {digits[:20]}...")
    return int(digits)


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [part for whole in level for part in _parts(whole)
                 if isinstance(part, (dict, list))]
        if not level:
            return False
    return True


def _lone_surrogate(value: Any) -> str | None:
    """Returns a text inside a JSON value that UTF-8 cannot encode, None if there is none."""
    left = [value]
    while left:
        part = left.pop()
        left += _parts(part)
        for text in (part,) if isinstance(part, str) else part if isinstance(part, dict) else ():
            if any("\ud800" <= c <= "\udfff" for c in text):
                return text
    return None


def _parts(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
