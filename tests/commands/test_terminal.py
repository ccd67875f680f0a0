import io
import os
import subprocess
import sys

import pytest
from pseudo_terminal import terminal

from llama_from_scratch.commands.terminal import (
    OutputClosed,
    Terminal,
    guarded,
    say,
    shown,
    shown_line,
)

LLAMA = [sys.executable, "-m", "llama_from_scratch"]


@pytest.mark.parametrize(("text", "expected"), [
    ("\x1b]0;X\x07", r"\x1b]0;X\x07"), ("a\rb", r"a\rb"), ("\x9b2J", r"\x9b2J"),
    ("\x7f\x08\x00", r"\x7f\x08\x00"), ("\u202egpj.exe\u2069", r"\u202egpj.exe\u2069"),
    ("one\n\ttwo", "one\n\ttwo"), ("é 日本 👩‍🚀 مرحبا", "é 日本 👩‍🚀 مرحبا"),
    ("a\u2028b", r"a\u2028b"),
])
def test_control_characters_are_shown_as_escapes_and_text_as_it_is(text, expected):
    assert shown(text) == expected
    assert "".join(map(shown, text)) == expected, "also when the sequence comes in pieces"


def test_every_control_character_is_escaped_and_nothing_else():
    controls = [*range(9), 11, 12, *range(13, 32), *range(0x7f, 0xa0), *range(0x2028, 0x202f),
                *range(0x2066, 0x206a)]
    for code in range(0x3000):
        assert (shown(chr(code)) != chr(code)) == (code in controls)
    assert shown_line("a\nb\x1b") == r"a\nb\x1b"


def on(below, **settings):
    return Terminal(below, **{"is_lasting": False, "is_redrawn": False, **settings})


@pytest.mark.parametrize(("encoding", "expected"), [
    ("ascii", rb"\u25a0 \xe9 \U0001f999"), ("cp1252", b"\\u25a0 \xe9 \\U0001f999"),
    ("utf-8", "■ é 🦙".encode()),
])
def test_letters_that_the_encoding_lacks_are_shown_as_escapes(encoding, expected):
    data = io.BytesIO()
    below = io.TextIOWrapper(data, encoding=encoding)
    on(below).write("■ é 🦙")
    below.flush()
    assert data.getvalue() == expected


def test_a_lone_surrogate_of_a_file_name_is_shown():
    below = io.StringIO()
    on(below).write("caf\udce9")
    assert below.getvalue() == r"caf\udce9"


def test_only_the_beginning_of_a_line_that_is_redrawn_passes():
    for text, expected in (
        ("\r\x1b[K12 %", "\r\x1b[K12 %"), ("\rloading\x1b[K", "\rloading\\x1b[K"),
        ("\n\x1b[A", "\n\x1b[A"),
        ("\x1b[A12", r"\x1b[A12"), ("a\rb", r"a\rb"), ("\r\x1b]0;X\x07", "\r\\x1b]0;X\\x07"),
    ):
        below = io.StringIO()
        on(below, is_redrawn=True).write(text)
        assert below.getvalue() == expected


class Broken(io.StringIO):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


def test_a_stream_that_lasts_goes_on_without_output():
    for error in (BrokenPipeError(), OSError(28, "No space left"), OSError(5, "I/O error")):
        stream = on(Broken(error), is_lasting=True)
        for _ in range(3):
            print("progress", file=stream, flush=True)
        assert not stream.isatty()


def test_another_stream_says_what_happened():
    with pytest.raises(OutputClosed):
        on(Broken(BrokenPipeError())).write("x")
    with pytest.raises(OSError, match="No space"):
        on(Broken(OSError(28, "No space left"))).write("x")


def test_closed_streams_take_everything():
    stream = on(None)
    print("x", file=stream, flush=True)
    assert not stream.isatty()
    with pytest.raises(io.UnsupportedOperation):
        stream.fileno()


def test_streams_are_guarded_only_within_the_block(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", None)
    before = sys.stdout, sys.stderr
    with guarded():
        print("\x1b[2J")
        print("\x1b[2J", file=sys.stderr)
        say("exactly \x1b[2J\n")
        assert sys.stdin.read() == ""
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("\\x1b[2J\nexactly \x1b[2J\n", "\\x1b[2J\n")


# --- the command as a process ---------------------------------------------------------------------


def shell(script, **environment):
    """Runs a script of bash in which llama is the command; its status and what it shows."""
    script = f'set -o pipefail\nllama() {{ {" ".join(LLAMA)} "$@"; }}\n{script}'
    done = subprocess.run(["bash", "-c", script], capture_output=True, env=os.environ | environment)
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.mark.parametrize(("command", "status"), [
    ("seq 30000 > $TEXT; llama tokenize --file $TEXT | head -1", 141),
    ("llama tokenize hello | true", 141),
    ("llama --help | true", 141),
    ("llama progress | true", 141),
    ("llama inspect $MINI | true", 141),
    ("llama generate --max-tokens 3 | true", 141),
    ("echo a | llama chat --max-tokens 3 | true", 141),
])
def test_a_closed_pipe_ends_a_command_quietly(command, status, tmp_path):
    from llama_from_scratch import bundled

    found, _, errors = shell(command, MINI=str(bundled.path("mini")), TEXT=str(tmp_path / "text"))
    assert (found, errors) == (status, "")


def test_a_full_disk_is_said():
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    status, _, errors = shell("llama tokenize hello > /dev/full")
    assert status == 2 and errors == "llama: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "| true",
                                    "2>&1 | true", "> /dev/full", "> /dev/full 2> /dev/full"])
def test_a_training_does_not_depend_on_its_output(closed, trained, tmp_path):
    from command_line import SMALL

    command = f"llama train --data {trained}/text.txt --out {tmp_path}/run {' '.join(SMALL)}"
    status, _, errors = shell(f"{command} {closed}")
    assert status == 0 and "Error" not in errors and "Exception" not in errors
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == sorted(path.name for path in (trained / "run").iterdir())
    weights = "model.safetensors"
    assert (tmp_path / "run" / weights).read_bytes() == (trained / "run" / weights).read_bytes()


@pytest.mark.parametrize("command", [
    ["progress"], ["tokenize", "■ é 🦙"], ["generate", "--prompt", "é ■", "--max-tokens", "3"],
    ["--help"], ["doctor"], ["inspect", "■é"], ["explode", "■é"],
])
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_no_encoding_kills_a_command(command, encoding):
    done = subprocess.run([*LLAMA, *command], capture_output=True,
                          env=os.environ | {"PYTHONIOENCODING": encoding})
    assert b"Traceback" not in done.stderr and b"codec" not in done.stderr
    done.stdout.decode(encoding), done.stderr.decode(encoding)


@pytest.mark.parametrize("command", [
    ["inspect", "\x1b]0;X\x07\r\x9b2J\u202e"], ["tokenize", "--file", "\x1b]0;X\x07\r\u202e"],
    ["generate", "--prompt-file", "\x1b]0;X\x07"], ["explode\x1b]0;X\x07", "\x1b[2J"],
    ["inspect", "x", "\x1b[2J\r"], ["tokenize", "\x1b]0;X\x07\r\x9b"],
    ["generate", "--seed", "\x1b"],
    ["train", "--data", "\x1b]0;X\x07"], ["convert", "\x1b[2J", "x", "--format", "\x1b[2J"],
])
def test_no_argument_reaches_the_terminal_raw(command):
    done = subprocess.run([*LLAMA, *command], capture_output=True)
    for shown_bytes in (done.stdout, done.stderr):
        text = shown_bytes.decode()
        assert shown(text) == text
    assert b"x1b" in done.stdout + done.stderr


def test_a_prompt_is_shown_escaped_on_a_terminal_and_exact_in_a_pipe():
    command = [*LLAMA, "generate", "--max-tokens", "1", "--prompt", "a\x1b]0;X\x07b\rc"]
    with terminal(command) as screen:
        screen.wait_for(r"a\x1b]0;X\x07b\rc")
        status, rest = screen.end()
        assert status == 0 and "\x1b" not in rest
    assert subprocess.run(command, capture_output=True).stdout.startswith(b"a\x1b]0;X\x07b\rc")
