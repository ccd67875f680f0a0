import pytest
from command_line import converse

from llama_from_scratch.__main__ import main
from llama_from_scratch.generate.chat import Chat


def test_chat_continues_each_opening_and_ends_at_an_empty_line(trained, capsys, monkeypatch):
    lines = iter(["The cat", "x" * 500, "The dog", "", "never read"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    assert main(["chat", str(trained / "run"), "--max-tokens", "8"]) == 0
    shown = capsys.readouterr()
    assert "continues stories" in shown.out and "\nThe cat" in shown.out and "The dog" in shown.out
    assert "context holds 64 tokens" in shown.err, "an opening that is too long does not end it"
    assert next(lines) == "never read"


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
    assert "Chat in the format of Llama 3.1" in shown and "/reset forgets" in shown
    assert [m.content for m in chat.messages if m.role == "user"] == ["the mat", "the end"]
    assert chat.system is None
    assert all(m.content in shown for m in chat.messages if m.role == "assistant")
    for words in ("(the model reads that from now on)", "(all forgotten)", "(commands are /reset",
                  "no system message from now on", "(cut here; say"):
        assert words in shown


def test_chat_shows_what_is_wrong_with_a_line_and_goes_on(talker, capsys, monkeypatch):
    converse(monkeypatch, "x" * 400_000, "the cat")
    assert main(["chat", talker, "--max-tokens", "3"]) == 0
    shown = capsys.readouterr()
    assert "context holds 131072 tokens, and this message takes" in shown.err
    assert "(cut here" in shown.out


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


def test_chat_ends_at_the_end_of_input(trained, monkeypatch):
    def closed(prompt):
        raise EOFError

    monkeypatch.setattr("builtins.input", closed)
    assert main(["chat", str(trained / "run")]) == 0


@pytest.mark.parametrize(("command", "message"), [
    (["chat", "{run}", "--system", "Be short."], "a system message needs a chat format"),
    (["chat", "{run}", "--chat-format", "llama-9"],
     "no chat format is called 'llama-9'; did you mean"),
])
def test_what_the_user_can_fix_is_one_line_and_status_2(command, message, refused):
    refused(command, message)
