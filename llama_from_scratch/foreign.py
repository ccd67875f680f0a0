"""How files that others made are read: through one door that knows what can be wrong with them.

A file may be missing, a folder, a pipe that never ends, a pointer of git-lfs, cut short, or JSON
that is nested ten thousand deep. Each becomes a ValueError with the file, the rule, what was found
and a cure. What is read is a regular file and nothing else, so that no read waits forever, and no
more than `MAX_BYTES` of it are taken into memory at once.

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
"""Of a file that is read whole. The largest tokenizer.json that was published has a tenth."""
MAX_DEPTH = 100
"""Of objects and lists inside each other in a JSON file."""
_MAX_DIGITS = 300
"""Of a whole number in a JSON file, so that each is also a float."""
_POINTER = b"version https://git-lfs.github.com/spec/v1"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
          stat.S_IFBLK: "a device"}


@contextlib.contextmanager
def opened(
    path: str | os.PathLike, *, need: str, may_be_empty: bool = False
) -> Iterator[io.BufferedReader]:
    """The regular file at `path`, open for reading bytes.

    `need`: the beginning of an error message, who needs what, such as "a checkpoint needs a GGUF
    file". Raises ValueError if the file is missing, may not be read, is empty, a folder, a pipe or
    a device, or a pointer of git-lfs in place of a file.
    """
    try:
        file = open(path, "rb", opener=_at_once)  # noqa: SIM115, an error has its own words
    except (OSError, ValueError) as error:
        raise _unopened(path, error, need=need) from error
    with file:
        about, where = os.fstat(file.fileno()), plain(path)
        if not stat.S_ISREG(about.st_mode):
            kind = _KINDS.get(stat.S_IFMT(about.st_mode), "something else")
            raise ValueError(f"{need} at {where}, a regular one; there is {kind}. Copy what it "
                             "gives to a file, and give that")
        if not about.st_size and not may_be_empty:
            raise ValueError(f"{need} at {where}; it cannot be read (it is empty). Copy or "
                             "download it again")
        if about.st_size < 1024 and _begin(file, len(_POINTER)) == _POINTER:
            raise ValueError(f"{need} at {where}; there is a pointer of git-lfs, "
                             f"{about.st_size} bytes that name the real file. Run `git lfs pull` "
                             f"in {plain(Path(path).absolute().parent)}, or download the file "
                             "itself from the page of its repository")
        yield file


def read_bytes(path: str | os.PathLike, *, need: str) -> bytes:
    """All bytes of a file. Raises ValueError as `opened` does, or if they are over `MAX_BYTES`."""
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
    """The value in a JSON file. Raises ValueError if the file is missing or damaged."""
    data = read_bytes(path, need=need)
    try:
        return parse_json(data)
    except ValueError as error:
        raise ValueError(f"{need} at {plain(path)}; it cannot be read ({error}). Correct it, or "
                         "download or save it again") from error


def parse_json(data: bytes) -> Any:
    """The value of a JSON text in UTF-8, with or without a byte-order mark.

    Raises ValueError for what json would take in silence or fail on with another error: a key
    given twice, NaN, Infinity and numbers beyond a float, deep nesting, half a surrogate pair.
    """
    text = decoded(data)
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant,
                           parse_float=_finite, parse_int=_whole)
    except RecursionError:
        value = None
    if (value is None and text.strip() != "null") or _is_too_deep(value):
        raise ValueError(f"objects and lists are at most {MAX_DEPTH} deep in each other, and these "
                         "are deeper")
    if _SURROGATE.search(text) and (bad := _lone_surrogate(value)) is not None:
        raise ValueError(f"text is made of whole characters, and {shown(bad)} holds half a pair of "
                         "surrogates")
    return value


def decoded(data: bytes) -> str:
    """Bytes as text, without a byte-order mark. Raises ValueError if they are not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"text is UTF-8, and byte {error.start} is 0x{data[error.start]:02x} "
                         f"({error.reason})") from None


def is_there(path: str | os.PathLike) -> bool:
    """Is there anything at `path`, be it a broken link?

    Raises ValueError where that cannot be known: no right to look, a name that no file can have.
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
    """Lets every ValueError of the block name `path`, in at most 1,500 printable characters.

    What is said of a value deep inside a file does not know the file.
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
    """A value from a file as an error message shows it: short, on one line, without controls."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = max_chars
    short.maxlevel = 3
    text = short.repr(value)
    return text if len(text) <= max_chars else text[: max_chars - 3] + "..."


def plain(text: object, *, max_chars: int = 400) -> str:
    """A name or a path as it is; what a terminal would obey, or not show, is escaped."""
    text = str(text)
    if len(text) > max_chars:
        text = f"{text[: max_chars // 2]}...{text[-max_chars // 4 :]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _unopened(path: str | os.PathLike, error: OSError | ValueError, *, need: str) -> ValueError:
    """What to say of a file that the system does not open."""
    if isinstance(error, ValueError):
        return ValueError(f"{need} at {shown(os.fspath(path))}; no path holds such characters "
                          f"({error}). Check the spelling")
    if error.errno == errno.ENAMETOOLONG:
        longest = max(map(len, Path(path).parts))
        found, cure = ("a name in a path has at most 255 bytes, and the longest here has "
                       f"{longest} characters", "Check the spelling, or choose a shorter name")
    elif error.errno == errno.EISDIR:
        found, cure = "there is a folder", "Give a file in it, or put the file in its place"
    elif error.errno in (errno.EACCES, errno.EPERM):
        found, cure = ("you may not read it", "Ask its owner, or change its rights with chmod, "
                       "also those of the folders above it")
    elif error.errno == errno.ENXIO:
        found, cure = ("there is a socket or a device", "Copy what it gives to a file, and give "
                       "that")
    elif error.errno == errno.ELOOP:
        found, cure = ("the links there lead in a circle", "Remove them, and copy or download it "
                       "again")
    elif os.path.islink(path):
        found, cure = (f"there is a link to {plain(os.readlink(path))}, where nothing is",
                       "Copy or download what it names, or remove the link")
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
    """A JSON object. Of a key that occurs twice, json keeps the last value and says nothing."""
    values = dict(pairs)
    if len(values) < len(pairs):
        (name, _), = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the name {shown(name)} occurs twice in one JSON object")
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"a number in JSON is finite, and there is {name}")


def _finite(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(f"a number in JSON is finite as a float, and there is {digits[:40]}")
    return value


def _whole(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a whole number has at most {_MAX_DIGITS} digits, and there is one of "
                         f"{len(digits)}, {digits[:20]}...")
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
    """A text inside a JSON value that UTF-8 cannot write, if there is one."""
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
