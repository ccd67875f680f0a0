"""Every way in which a file from outside can be no file, or no JSON, is refused in words."""

import errno
import json
import os
import socket
import stat

import pytest

from llama_from_scratch.foreign import (
    MAX_BYTES,
    MAX_DEPTH,
    is_there,
    opened,
    parse_json,
    plain,
    read_bytes,
    read_json,
    shown,
)

NEED = "a test needs a file"
POINTER = (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64
           + b"\nsize 4976698672\n")


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(path.parent)  # a socket's address has at most 107 bytes
        server.bind(path.name)


BAD = {
    "is missing. Check the path": lambda path: None,
    r"it cannot be read \(it is empty\). Copy or download it again": lambda path: path.touch(),
    "there is a folder": lambda path: path.mkdir(),
    "there is a pipe. Copy its content to a file": os.mkfifo,
    "there is a socket": a_socket,
    "a link to nowhere, where nothing is": lambda path: path.symlink_to("nowhere"),
    "the links there lead in a circle": lambda path: path.symlink_to(path.name),
    r"there is a git-lfs pointer, 1\d\d bytes that name the real file. Run `git lfs pull` in /":
        lambda path: path.write_bytes(POINTER),
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_no_file_is_refused_with_its_path_and_a_cure(message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    BAD[message](tmp_path / "a.bin")
    for read in (read_bytes, read_json):
        with pytest.raises(ValueError, match=rf"a test needs a file at .*a.bin.*; .*{message}"):
            read(tmp_path / "a.bin", need=NEED)


def test_a_device_is_refused():
    with pytest.raises(ValueError, match="at /dev/zero, a regular one; there is a device"):
        read_bytes("/dev/zero", need=NEED)


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"1")

    def refuse(path, flags=0):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "open", refuse)  # root may read everything
    with pytest.raises(ValueError, match="you have no right to read it. Ask its owner, or change"):
        read_bytes(tmp_path / "a", need=NEED)
    monkeypatch.setattr(os, "lstat", refuse)
    with pytest.raises(ValueError, match="you have no right to read it"):
        is_there(tmp_path / "a")


@pytest.mark.parametrize(("name", "message"), [
    ("x" * 300, "a name in a path has at most 255 bytes, and the longest here has 300 characters"),
    ("a\0b", r"'a\\x00b'; no path may hold such characters"),
])
def test_names_that_no_file_can_have_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        read_bytes(name, need=NEED)
    with pytest.raises(ValueError, match=message):
        is_there(name)


def test_a_file_that_is_read_whole_is_not_too_large(tmp_path):
    with open(tmp_path / "a", "wb") as out:
        out.truncate(MAX_BYTES + 1)
    with pytest.raises(ValueError, match="of at most 268,435,456 bytes; there are 268,435,457"):
        read_bytes(tmp_path / "a", need=NEED)


def test_a_regular_file_is_opened_at_its_beginning_and_may_be_empty_where_that_is_said(tmp_path):
    (tmp_path / "a").write_bytes(b"version")
    with opened(tmp_path / "a", need=NEED) as file:
        assert file.read() == b"version" and stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    (tmp_path / "a").write_bytes(b"")
    with opened(tmp_path / "a", need=NEED, may_be_empty=True) as file:
        assert file.read() == b""


def test_is_there_sees_a_broken_link_and_not_what_would_be_in_a_file(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").touch()
    assert is_there(tmp_path / "link") and is_there(tmp_path / "file")
    assert not is_there(tmp_path / "file" / "x") and not is_there(tmp_path / "x")


@pytest.mark.parametrize(("data", "message"), [
    (b"", "Expecting value"),
    (b"{", "Expecting property name"),
    (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the name 'c' occurs twice in one JSON object"),
    (b'{"a": NaN}', "a number in JSON must be finite, and there is NaN"),
    (b"[-Infinity]", "there is -Infinity"),
    (b"[1e999]", "finite as a float, and there is 1e999"),
    (b"[" + b"1" * 400 + b"]", "at most 300 digits, and there is one of 400, 1111"),
    (b"[" + b"1" * 5000 + b"]", "one of 5000"),
    (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), f"at most {MAX_DEPTH} deep"),
    (b"[" * 1000 + b"]" * 1000, f"at most {MAX_DEPTH} deep"),
    (b'{"a":' * 10**5 + b"1" + b"}" * 10**5, f"at most {MAX_DEPTH} deep"),
    (b"[" * 10**6, f"at most {MAX_DEPTH} deep"),
    (b'["\\ud83d"]', r"'\\ud83d' holds half of a surrogate pair"),
    (b'{"\\ude00": 1}', r"'\\ude00' holds half of a surrogate pair"),
    (b"\xff\xfe{}", "text must be UTF-8, and byte 0 is 0xff"),
    (b'["caf\xe9"]', "byte 5 is 0xe9"),
])
def test_json_that_others_take_in_silence_or_fail_on_is_refused(data, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse_json(data)
    assert type(caught.value) in (ValueError, json.JSONDecodeError)


@pytest.mark.parametrize("value", [None, {"a": [1, -2.5e-3, True, "é", "\U0001f600", 10**30]},
                                   "x" * 10**6])
def test_other_json_is_what_the_standard_says(value):
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert parse_json(text.encode()) == value
        assert parse_json(b"\xef\xbb\xbf" + text.encode()) == value
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert str(parse_json(deep)).count("[") == MAX_DEPTH


def test_values_and_names_are_shown_short_and_without_what_a_terminal_would_obey():
    assert shown("\x1b]0;X\x07") == r"'\x1b]0;X\x07'" and plain("\x1b[1m\n") == r"\x1b[1m\n"
    assert plain("a/é.bin") == "a/é.bin" and shown({"a": 1}) == "{'a': 1}"
    nested = []
    for _ in range(10**5):
        nested = [nested]
    for value in ("x" * 10**6, list(range(10**5)), {str(i): i for i in range(99)}, nested):
        assert len(shown(value)) <= 80
    assert len(plain("x" * 10**6)) < 400
