import io
import os
import select
import sys

import pytest
from pseudo_terminal import terminal

from llama_from_scratch.commands.typed import reader

pytestmark = pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals are of Unix")

PROGRAM = """
import sys
from llama_from_scratch.commands.terminal import guarded
from llama_from_scratch.commands.typed import reader
with guarded(), reader() as read:
    while True:
        try:
            text = read("you> ")
        except KeyboardInterrupt:
            print("\\nINTERRUPTED")
            continue
        except ValueError as error:
            print("REFUSED", error)
            continue
        if text in (None, "/exit"):
            break
        print(f"GOT {len(text)} {text!r}", file=sys.stderr)
print("END")
"""
LINES = [f"line {n} " + "é" * (n % 5) if n % 3 else "" for n in range(200)]


def program(**settings):
    return terminal([sys.executable, "-c", PROGRAM], **settings)


def said(screen):
    screen.wait_for("GOT ")
    return eval(screen.wait_for("\n").partition(" ")[2])


@pytest.mark.parametrize("settings", [{}, {"TERM": "dumb"}, {"is_stdout": False}], ids=str)
def test_a_pasted_text_is_one_message_and_the_next_line_another(settings):
    paste = "\n".join(LINES)
    for enter in ("\n", "\r"):
        with program(**settings) as screen:
            screen.wait_for("you> ")
            screen.type(paste.replace("\n", enter) + enter)
            assert said(screen).rstrip("\n") == paste.rstrip("\n")
            screen.wait_for("you> ")
            screen.type("short" + enter)
            assert said(screen) == "short"
            screen.wait_for("you> ")
            screen.type("\x04")
            status, _ = screen.end()
            assert status == 0


@pytest.mark.parametrize("settings", [{}, {"TERM": "dumb"}], ids=str)
def test_the_unfinished_last_line_of_a_paste_can_be_edited(settings):
    with program(**settings) as screen:
        screen.wait_for("you> ")
        screen.type("one\n\ntwo\nthrex")
        screen.wait_for("threx")
        screen.type("\x7fe\n")
        assert said(screen) == "one\n\ntwo\nthree"
        screen.type("\x04")
        assert screen.end()[0] == 0


def test_a_marked_paste_waits_for_enter_and_arrives_whole():
    with program() as screen:
        screen.wait_for("\x1b[?2004h")  # the program asks the terminal to mark what is pasted
        screen.wait_for("you> ")
        screen.type("see: \x1b[200~" + "\r".join(LINES) + "\x1b[201~")
        screen.wait_for("line 199")
        screen.type(" ok\r")
        assert said(screen) == "see: " + "\n".join(LINES) + " ok"
        screen.wait_for("you> ")
        screen.type("\x04")
        assert screen.end()[0] == 0


def test_a_line_longer_than_the_terminals_own_limit_is_whole():
    with program() as screen:
        screen.wait_for("you> ")
        screen.type("x" * 9000 + "\n")
        assert said(screen) == "x" * 9000
        screen.wait_for("you> ")
        screen.type("a\n" + "y" * 9000 + "\nb\n")
        assert said(screen).rstrip("\n") == "a\n" + "y" * 9000 + "\nb"


def test_without_an_editor_a_line_that_the_terminal_cuts_is_refused():
    with program(is_stdout=False) as screen:
        screen.wait_for("you> ")
        screen.type("x" * 9000 + "\n")
        screen.wait_for("you> ")
        screen.type("short\n")
        assert said(screen) == "short"


def test_ctrl_d_at_once_ends_it():
    for settings in ({}, {"is_stdout": False}):
        with program(**settings) as screen:
            screen.wait_for("you> ")
            screen.type("\x04")
            assert screen.end()[0] == 0


def test_ctrl_c_drops_the_line_and_what_was_typed_before_it():
    with program() as screen:
        screen.wait_for("you> ")
        screen.type("never sent")
        screen.wait_for("never sent")
        screen.interrupt_until("INTERRUPTED")
        screen.wait_for("you> ")
        screen.type("sent\n")
        assert said(screen) == "sent"


def test_ctrl_d_after_a_pasted_line_ends_it_after_that_message():
    with program() as screen:
        screen.wait_for("you> ")
        screen.type("one\ntwo\n\x04")
        assert said(screen).rstrip("\n") == "one\ntwo"
        assert screen.end()[0] == 0


def test_nothing_that_was_typed_is_left_for_the_shell_and_the_terminal_is_as_it_was():
    shell = ["sh", "-c", 'stty -a; "$@"; stty -a; echo READY; IFS= read -r line; echo "LEFT $line"',
             "sh", sys.executable, "-c", PROGRAM]
    with terminal(shell) as screen:
        before = screen.wait_for("you> ")
        screen.type("\x04" + "touch planted\n" * 50)
        after = screen.wait_for("READY")
        screen.type("mine\n")
        status, shown = screen.end()
        assert status == 0 and "LEFT mine" in shown
    settings = [text[text.index("speed"):].partition("\x1b")[0].partition("READY")[0].split()
                for text in (before, after)]
    assert "icanon" in settings[0] and settings[0] == settings[1]


def test_what_is_typed_during_an_answer_is_the_next_message():
    with program() as screen:
        screen.wait_for("you> ")
        screen.type("one\n")
        assert said(screen) == "one"
        screen.type("two\n")
        assert said(screen) == "two"


@pytest.mark.parametrize("text", ["one\n\ntwo\n", "one\n\ntwo"])
def test_each_line_of_a_file_is_a_message(text, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    with reader() as read:
        assert [read("you> ") for _ in range(4)] == ["one", "", "two", None]
    assert capsys.readouterr().out == "you> one\nyou> \nyou> two\n", "the output is a conversation"


def test_a_line_of_a_pipe_is_answered_before_the_next_is_written(monkeypatch):
    out, into = os.pipe()
    with os.fdopen(out) as source, os.fdopen(into, "w", buffering=1) as sink:
        monkeypatch.setattr("sys.stdin", source)
        with reader() as read:
            for word in ("one", "two"):
                sink.write(word + "\n")
                assert read("") == word
                assert not select.select([source], [], [], 0)[0]
