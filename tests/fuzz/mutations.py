"""Ways to damage one file of a seed: bytes, lengths, values of JSON, archives, and no file at all.

`mutate(rng, seed)` gives the damage in words and the new files: bytes by name, a function that
makes something else at a path, or None where the file is gone.
"""

import io
import json
import os
import random
import socket
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from .seeds import Seed

Content = bytes | Callable[[Path], object] | None
POINTER = (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64
           + b"\nsize 4976698672\n")
_FORGED = (0, 1, -1, 2, 7, 127, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, -(2**63), 10**9)
_RAW = "\ue000"  # marks a text that stands for itself in JSON: 1e999, NaN, a thousand brackets
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 7, 31, 2**31, 2**63, -(2**63), 10**18, 0.5, -0.0, 1e308,
    1e-320, 1.5, "", "0", "x" * 10_000, "x" * 300, "\x1b]0;X\x07", "a\0b", "\u202e", "é", [], {},
    [None], [[]], {"a": 1}, [1, 2], "../x", "/dev/zero", "float32", "(a+)+$", "(", "[", "(?P<",
    "a{99999}", r"(?:(?:a{999}){999}){999}", "\\", "(?R)", r"[\s\S]", "always", "none",
    *(_RAW + text for text in ("1e999", "-1e999", "NaN", "Infinity", "-Infinity", "1" * 400,
                               "1" * 5000, "[" * 1000 + "]" * 1000,
                               '{"a":' * 2000 + "1" + "}" * 2000,
                               '"\\ud800"', "01", "'a'", "", '{"a": 1, "a": 2}', "1" * 30)))


def mutate(
    rng: random.Random, seed: Seed, others: Sequence[Seed]
) -> tuple[str, dict[str, Content]]:
    """What was done, in words, and the files that it changes."""
    name = rng.choice(list(seed.files))
    data = seed.files[name]
    if rng.random() < 0.04:
        how, content = rng.choice(list(_SPECIAL.items()))
        return f"{name}: {how}", {name: content}
    if rng.random() < 0.03:
        other = rng.choice(others)
        theirs = rng.choice(list(other.files))
        return f"{name}: {theirs} of {other.name}", {name: other.files[theirs]}
    ways = [_mutate_bytes]
    ways += [_mutate_json] * 5 if name.endswith(".json") else []
    ways += [_mutate_header] * 3 if name.endswith(".safetensors") else []
    ways += [_mutate_pickle, _mutate_archive] if name.endswith(".pth") else []
    ways += [_mutate_lines] if name == "tokenizer.model" and data[:1] != b"\n" else []
    how, changed = rng.choice(ways)(rng, data)
    return f"{name}: {how}", {name: changed}


def _mutate_bytes(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    near = min(len(data), 4096)
    at = rng.randrange(near if rng.random() < 0.8 else len(data)) if data else 0
    way = rng.randrange(11)
    if way == 0:
        return f"bit flipped at {at}", _put(data, at, bytes([data[at] ^ 1 << rng.randrange(8)]))
    if way == 1:
        new = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80", rng.randbytes(1), rng.randbytes(4)))
        return f"{new!r} at {at}", _put(data, at, new)
    if way == 2:
        return f"cut at {at}", data[:at]
    if way == 3:
        end = rng.randrange(len(data) + 1)
        return f"cut at {end}", data[:end]
    if way == 4:
        return f"without the first {at}", data[at:]
    if way == 5:
        new = rng.randbytes(rng.choice((1, 2, 8, 100)))
        return f"{len(new)} bytes put in at {at}", data[:at] + new + data[at:]
    if way == 6:
        return f"{at} to {at + 64} twice", data[:at + 64] + data[at:]
    if way == 7:
        return "the whole twice", data + data
    if way == 8:
        return f"{at} to {at + 16} taken out", data[:at] + data[at + 16:]
    value, size = rng.choice(_FORGED), rng.choice((4, 8))
    new = (value % (1 << 8 * size)).to_bytes(size, "little")
    at -= at % 4 if way == 9 else 0
    return f"{value} in {size} bytes at {at}", _put(data, at, new)


def _put(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new):]


def _mutate_json(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    how, text = _changed(rng, json.loads(data))
    return how, text.encode("utf-8", "surrogatepass")


def _mutate_header(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    """The header of a safetensors file with another value, and with its right length."""
    end = 8 + int.from_bytes(data[:8], "little")
    how, text = _changed(rng, json.loads(data[8:end]))
    header = text.encode("utf-8", "surrogatepass")
    return f"header, {how}", struct.pack("<Q", len(header)) + header + data[end:]


def _changed(rng: random.Random, value: Any) -> tuple[str, str]:
    """A JSON text in which one place of `value` is another."""
    if rng.random() < 0.03:
        new = rng.choice(_VALUES)
        return f"is {new!r:.40}", _dumped(new)
    way, place = "", value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return f"an empty place at {way}", _dumped(value)
        key = rng.choice(keys)
        way += f"/{key!r:.30}"
        if isinstance(place[key], (dict, list)) and place[key] and rng.random() < 0.8:
            place = place[key]
            continue
        break
    kind = rng.randrange(10)
    if kind <= 5:
        place[key] = rng.choice((*_VALUES, *_near(place[key])))
        return f"{way} is {place[key]!r:.40}", _dumped(value)
    if kind == 6:
        del place[key]
        return f"without {way}", _dumped(value)
    if isinstance(place, list):
        other = rng.choice(keys)
        place[key], place[other] = place[other], place[key]
        return f"{way} exchanged with {other}", _dumped(value)
    if kind == 7:
        new = rng.choice((key[:-1], key.upper(), key + "s", "x" * 300, "\x1b[2J", "é", ""))
        place[new] = place.pop(key)
        return f"{way} is called {new!r:.40}", _dumped(value)
    if kind == 8:
        new = rng.choice(_VALUES)
        text = _dumped(value)
        twice = json.dumps(key) + ": "
        return (f"{way} given twice, first as {new!r:.40}",
                text.replace(twice, f"{twice}{_dumped(new)}, {twice}", 1))
    new = rng.choice(("foo", "x" * 300, "\x1b]0;X\x07", "quantization_config", "rope_scaling"))
    place[new] = rng.choice(_VALUES)
    return f"{way} with {new!r:.30}: {place[new]!r:.40}", _dumped(value)


def _near(value: Any) -> tuple[Any, ...]:
    if isinstance(value, bool) or value is None:
        return (not value, str(value))
    if isinstance(value, (int, float)):
        return (value + 1, value - 1, -value, value * 2, value / 2, value * 1000, str(value),
                [value])
    if isinstance(value, str):
        return (value + "x", value[:-1], value.upper(), [value], {"content": value}, value * 100)
    return ([value], {"a": value}, len(value))


def _dumped(value: Any) -> str:
    """JSON, where a text that begins with `_RAW` stands for itself."""
    text = json.dumps(value, ensure_ascii=False)
    for whole in {part for part in _VALUES if isinstance(part, str) and part.startswith(_RAW)}:
        text = text.replace(json.dumps(whole, ensure_ascii=False), whole.removeprefix(_RAW))
    return text


def _mutate_lines(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    lines = data.splitlines(keepends=True)
    i, way = rng.randrange(len(lines)), rng.randrange(5)
    if way == 0:
        return f"without line {i}", b"".join(lines[:i] + lines[i + 1:])
    if way == 1:
        return f"line {i} twice", b"".join(lines[:i + 1] + lines[i:])
    if way == 2:
        return f"{i} lines", b"".join(lines[:i])
    rank = rng.choice((b"-1", b"1" * 5000, b"1e3", b"0x10", "١".encode(), b"1_0", b"", b"3 4",
                       b"260", b"9" * 19))
    lines[i] = lines[i].split()[0] + b" " + rank + b"\n"
    return f"rank {rank!r:.20} in line {i}", b"".join(lines)


def _mutate_archive(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    """The pickle inside a .pth file damaged, and the archive around it whole."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        entries = {entry.filename: old.read(entry) for entry in old.infolist()}
        pickled = next(name for name in entries if name.endswith("data.pkl"))
        name = pickled if rng.random() < 0.8 else rng.choice(list(entries))
        how, entries[name] = _mutate_bytes(rng, entries[name])
        for each, content in entries.items():
            new.writestr(each, content)
    return f"inside, {name.rpartition('/')[2]}: {how}", out.getvalue()


def _mutate_pickle(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    """A .pth file with one tensor of another kind."""
    content = torch.load(io.BytesIO(data), weights_only=True)
    name = rng.choice(list(content))
    how, change = rng.choice(list(_TENSORS.items()))
    content[name] = change(content[name].float())
    if how == "an int as name":
        content[3] = content.pop(name)
    out = io.BytesIO()
    torch.save(content, out)
    return f"{name} is {how}", out.getvalue()


_TENSORS: dict[str, Callable[[torch.Tensor], Any]] = {
    "sparse": lambda t: t.to_sparse(),
    "sparse in rows": lambda t: t.to_sparse_csr() if t.ndim == 2 else t.to_sparse(),
    "quantized": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    "meta": lambda t: t.to("meta"),
    "turned": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
    "expanded": lambda t: t.flatten()[:1].expand(t.shape),
    "of huge shape": lambda t: t.flatten()[:1].expand(10**6, 10**6),
    "a part of a larger one": lambda t: torch.cat([t, t])[: len(t)],
    "a parameter": lambda t: torch.nn.Parameter(t),
    "empty": lambda t: t[:0],
    "a number": lambda t: t.sum(),
    "complex": lambda t: t + 0j,
    "conjugated": lambda t: (t + 0j).conj(),
    "imaginary": lambda t: (t + 0j).conj().imag,
    "whole": lambda t: t.long(),
    "of truths": lambda t: t > 0,
    "float8": lambda t: t.to(torch.float8_e4m3fn),
    "double": lambda t: t.double(),
    "infinite": lambda t: t * torch.inf,
    "a list": lambda t: [t],
    "a dict": lambda t: {"a": t},
    "None": lambda t: None,
    "a text": lambda t: "x",
    "an int as name": lambda t: t,
    "larger": lambda t: torch.cat([t, t]),
    "with one axis more": lambda t: t[None],
    "nested": lambda t: torch.nested.nested_tensor([t.flatten(), t.flatten()[:1]]),
    "a set": lambda t: {1, 2},
    "a size": lambda t: torch.Size([1, 2]),
}


def _link(target: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(target)


def _socket(path: Path) -> None:
    before = os.getcwd()
    os.chdir(path.parent)  # a socket's address has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(before)


_SPECIAL: dict[str, Content] = {
    "gone": None, "empty": b"", "a pointer of git-lfs": POINTER, "a pipe": os.mkfifo,
    "a folder": lambda path: path.mkdir(), "a socket": _socket,
    "a link to nowhere": _link("nowhere"), "a link to itself": lambda path: _link(path.name)(path),
    "a link to /dev/zero": _link("/dev/zero"), "a link to a folder": _link("/"),
    "a million brackets": b"[" * 10**6, "a million objects": b'{"a":' * 10**6,
    "a page of HTML": b"<!DOCTYPE html>\n<html><body>404</body></html>\n", "zeros": bytes(5000),
    "a text in UTF-16": '{"a": 1}'.encode("utf-16"), "a byte-order mark alone": b"\xef\xbb\xbf",
    "null": b"null", "a gzip": b"\x1f\x8b\x08\0" + bytes(20), "a pickle": b"\x80\x04K\x01.",
    "a long line": b"QQ== 0" * 10**5, "one newline": b"\n",
}
