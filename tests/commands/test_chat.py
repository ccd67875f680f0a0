import shlex
import subprocess
import sys

import fusion_looking
import pytest
from command_line import converse
from pseudo_terminal import terminal

from llama_from_scratch.__main__ import main
from llama_from_scratch.commands import chat as module
from llama_from_scratch.generate.chat import Chat


def test_chat_continues_each_opening_and_ends_with_the_input(trained, capsys, monkeypatch):
    converse(monkeypatch, "The cat", "", "x" * 500, "The dog")
    assert main(["chat", str(trained / "run"), "--max-tokens", "8"]) == 0
    shown = capsys.readouterr()
    assert "continues stories" in shown.out and "\nThe cat" in shown.out, shown
    assert "\nThe dog" in shown.out, "an empty line does not end it"
    assert "context holds 64 tokens" in shown.err, "an opening that is too long does not end it"


def test_exit_ends_it_and_what_follows_is_not_read(trained, capsys, monkeypatch):
    converse(monkeypatch, "The cat", "/exit", "The dog")
    assert main(["chat", str(trained / "run"), "--max-tokens", "3"]) == 0
    assert "The dog" not in capsys.readouterr().out and sys.stdin.readline() == "The dog\n"


def test_help_lists_the_commands_and_an_unknown_one_is_named(talker, trained, capsys, monkeypatch):
    for model, commands in ((talker, ("/reset", "/system", "/exit", "/help")),
                            (str(trained / "run"), ("/exit", "/help"))):
        for line in ("/help", "/reste", "/"):
            converse(monkeypatch, line)
            assert main(["chat", model]) == 0
            shown = capsys.readouterr().out
            assert all(f"\n{command} " in shown for command in commands)
            assert (f"There is no command {line}." in shown) == (line != "/help")
            assert "begin it with // or a space" in shown


def test_a_line_that_begins_with_a_slash_can_be_sent(talker, capsys, monkeypatch):
    asked = []

    def say(self, text, **settings):
        asked.append(text)
        yield "yes"

    monkeypatch.setattr(Chat, "say", say)
    converse(monkeypatch, "/usr is a folder", "//usr is a folder", " /usr is a folder", "a/b")
    assert main(["chat", talker]) == 0
    assert asked == ["/usr is a folder", "/usr is a folder", "a/b"]
    assert "There is no command /usr." in capsys.readouterr().out


def test_chat_with_a_model_that_has_a_format_answers_and_remembers(talker, capsys, monkeypatch):
    chats, say = [], Chat.say

    def recorded(self, text, **settings):
        chats.append(self)
        return say(self, text, **settings)

    monkeypatch.setattr(Chat, "say", recorded)
    converse(monkeypatch, "the cat", "/system Be short.", "the rat", "/reset", "the mat", "/help",
             "/system", "the end")
    flags = ["--system", "Be long.", "--max-tokens", "5", "--temperature", "1"]
    assert main(["chat", talker, *flags]) == 0
    shown = capsys.readouterr().out
    (chat,) = set(chats)
    assert "Chat in the format of Llama 3.1" in shown and "/help lists" in shown
    assert [m.content for m in chat.messages if m.role == "user"] == ["the mat", "the end"]
    assert chat.system is None
    assert all(m.content in shown for m in chat.messages if m.role == "assistant")
    for words in ("(the model reads this system message from now on)",
                  "(the conversation is forgotten)", "forgets the conversation so far",
                  "no system message from now on", "(cut off here; to continue"):
        assert words in shown


def test_chat_shows_what_is_wrong_with_a_line_and_goes_on(talker, capsys, monkeypatch):
    converse(monkeypatch, "x" * 400_000, "the cat")
    assert main(["chat", talker, "--max-tokens", "3"]) == 0
    shown = capsys.readouterr()
    assert "context holds 131072 tokens, and this message takes" in shown.err
    assert "(cut off here" in shown.out


def test_chat_shows_when_the_oldest_turns_are_forgotten(talker, capsys, monkeypatch):
    init = Chat.__init__

    def short(self, *args, **settings):
        init(self, *args, **settings, context=80)

    monkeypatch.setattr(Chat, "__init__", short)
    converse(monkeypatch, *["the cat sat on the mat"] * 6)
    assert main(["chat", talker, "--max-tokens", "5"]) == 0
    words = "(the context of 80 tokens is full: the first 2 messages are forgotten)"
    assert words in capsys.readouterr().out


def test_ctrl_c_stops_an_answer_and_not_the_chat(talker, capsys, monkeypatch):
    say, asked = Chat.say, []

    def interrupted(self, text, **settings):
        asked.append(text)
        yield from list(say(self, text, **settings))[:2]
        if len(asked) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Chat, "say", interrupted)
    converse(monkeypatch, "the cat", "the rat")
    assert main(["chat", talker, "--max-tokens", "3"]) == 0
    assert asked == ["the cat", "the rat"] and capsys.readouterr().out.count("(stopped)") == 1


def test_any_model_can_be_made_to_write_stories(talker, capsys, monkeypatch):
    converse(monkeypatch, "The cat")
    assert main(["chat", talker, "--chat-format", "none", "--max-tokens", "3"]) == 0
    assert "continues stories" in (shown := capsys.readouterr().out) and "\nThe cat" in shown


def test_a_conversation_on_a_terminal_takes_pastes_and_ctrl_c(talker):
    command = [sys.executable, "-m", "llama_from_scratch", "chat", talker, "--temperature", "0"]
    with terminal([*command, "--max-tokens", "100000"]) as screen:
        screen.wait_for("/help lists")
        screen.wait_for("you> ")
        screen.type("the cat\n\n" + "sat on the mat\n" * 199)
        screen.wait_for("sat on the mat\r\n" * 199)
        screen.wait_for_more()  # the answer
        screen.interrupt_until("(stopped)")
        screen.wait_for("you> ")
        screen.interrupt_until("(Ctrl-D or /exit ends this")
        screen.wait_for("you> ")
        screen.type("/help\n")
        screen.wait_for("/reset")
        screen.wait_for("you> ")
        screen.type("\x04")
        status, shown = screen.end()
        assert status == 0 and "Traceback" not in shown and "you>" not in shown


def test_two_ctrl_c_in_a_row_end_it(talker):
    with terminal([sys.executable, "-m", "llama_from_scratch", "chat", talker]) as screen:
        screen.wait_for("you> ")
        screen.interrupt_until("(Ctrl-D or /exit ends this")
        screen.wait_for("you> ")
        status, shown = screen.interrupt_to_the_end()
        assert status == 130 and "Traceback" not in shown


def test_an_answer_shows_no_control_sequence_on_a_terminal(talker, tmp_path):
    script = ("import sys\nfrom llama_from_scratch.__main__ import main\n"
              "from llama_from_scratch.generate.chat import Chat\n"
              "Chat.say = lambda *_, **__: iter(['a\\x1b', ']0;X', '\\x07b\\r', '\\x9bc'])\n"
              "sys.exit(main(['chat', sys.argv[1]]))")
    command = [sys.executable, "-c", script, talker]
    with terminal(command) as screen:
        screen.wait_for("you> ")
        screen.type("hello\n")
        screen.wait_for(r"a\x1b]0;X\x07b\r\x9bc")
        screen.type("\x04")
        assert screen.end()[0] == 0
    piped = subprocess.run(command, input="hello\n", capture_output=True, encoding="utf-8")
    assert "a\x1b]0;X\x07b" in piped.stdout, "a pipe gets the text as it is"


@pytest.mark.parametrize(("command", "message"), [
    (["chat", "{run}", "--system", "Be short."], "a system message needs a chat format"),
    (["chat", "{run}", "--chat-format", "llama-9"],
     "no chat format is called 'llama-9'; did you mean"),
])
def test_what_the_user_can_fix_is_one_line_and_status_2(command, message, refused):
    refused(command, message)


# --- images ---------------------------------------------------------------------------------------


@pytest.fixture
def looking(looker, monkeypatch):
    """The chats that `llama chat` holds with a model that sees."""
    chats, original = [], Chat.__init__

    def made(chat, *args, **settings):
        original(chat, *args, **settings)
        chats.append(chat)

    monkeypatch.setattr(Chat, "__init__", made)
    monkeypatch.setattr(module, "load_model", lambda *args, **settings: looker)
    return chats


def test_images_are_shown_with_the_first_message_and_with_later_ones(
    looking, photos, capsys, monkeypatch
):
    cat, dog = photos / "cat.png", photos / "my dog's.png"
    converse(monkeypatch, "what are they?", "and now?", f"/image {cat}", f"/image {dog}", "this?",
             f"/image {cat}", "/image", "and without?", "/image", "/help")
    flags = ["--image", str(cat), "--image", str(dog), "--max-tokens", "3"]
    assert main(["chat", "any", *flags]) == 0
    (chat,), shown = looking, capsys.readouterr()
    asked = [(m.content, [image.width for image in m.images])
             for m in chat.messages if m.role == "user"]
    assert asked == [("what are they?", [30, 25]), ("and now?", []), ("this?", [30, 25]),
                     ("and without?", [])]
    for words in ("/image PATH shows an image", "(your next message shows this: 30 x 20 pixels)",
                  "(1 image taken back)", "(0 images taken back)", "\n/image   shows the image"):
        assert words in shown.out
    assert not shown.err


def test_a_broken_file_loses_nothing_of_the_conversation(looking, photos, capsys, monkeypatch):
    cat, words = photos / "cat.png", photos / "words.png"
    converse(monkeypatch, "hi", f"/image {cat}", f"/image {words}", "/image nowhere.png",
             "x" * 400_000, "and this?")
    assert main(["chat", "any", "--max-tokens", "3"]) == 0
    (chat,), shown = looking, capsys.readouterr()
    asked = [(m.content, len(m.images)) for m in chat.messages if m.role == "user"]
    assert asked == [("hi", 0), ("and this?", 1)], "the image waits for the next good message"
    assert "this is text, 'a cat'" in shown.err and "nowhere.png" in shown.err
    assert shown.err.count("\n") == 3


def test_a_dropped_path_is_read_and_one_without_the_command_is_explained(
    looking, photos, capsys, monkeypatch
):
    dog = photos / "my dog's.png"
    converse(monkeypatch, "/image " + shlex.quote(str(dog)), str(dog), "look")
    assert main(["chat", "any", "--max-tokens", "3"]) == 0
    assert f"To show this file to the model, write: /image {dog}" in capsys.readouterr().out
    assert len(looking[0].messages[0].images) == 1


def test_a_model_of_text_says_what_to_load_instead(talker, trained, photos, capsys, monkeypatch):
    cat = str(photos / "cat.png")
    converse(monkeypatch, f"/image {cat}", "the cat")
    assert main(["chat", talker, "--max-tokens", "3"]) == 0
    shown = capsys.readouterr()
    assert "this one reads text. Load one that sees, such as meta-llama/Llama-3.2-11B" in shown.err
    assert "/image PATH" not in shown.out.splitlines()[0]
    for model, message in ((talker, "Load one that sees"),
                           (str(trained / "run"), "llama generate --image")):
        converse(monkeypatch, "the cat")
        assert main(["chat", model, "--image", cat]) == 2
        assert message in capsys.readouterr().err


def test_a_broken_image_is_refused_before_a_model_is_read(photos, capsys):
    assert main(["chat", "nowhere", "--image", str(photos / "words.png")]) == 2
    assert "this is text, 'a cat'" in capsys.readouterr().err


def test_images_that_are_tokens_are_shown_too(photos, capsys, monkeypatch):
    speaker, asked = fusion_looking.speaker(), []
    monkeypatch.setattr(module, "load_model", lambda *args, **settings: speaker)
    say = Chat.say
    monkeypatch.setattr(Chat, "say", lambda chat, text, **settings: (
        asked.append((text, len(settings["images"]))), say(chat, text, **settings))[1])
    cat = photos / "cat.png"
    converse(monkeypatch, "what is it?", f"/image {cat}", "and now?", "and?")
    flags = ["--chat-format", "llama-4", "--image", str(cat), "--max-tokens", "3"]
    assert main(["chat", "any", *flags]) == 0
    shown = capsys.readouterr()
    assert "Chat in the format of Llama 4. /image PATH shows an image." in shown.out
    assert asked == [("what is it?", 1), ("and now?", 1), ("and?", 0)] and not shown.err
