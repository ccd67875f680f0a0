import argparse

import pytest

from llama_from_scratch.__main__ import main
from llama_from_scratch.commands.numbers import real, seed, whole


def test_numbers_are_read():
    assert (whole()("12"), seed()("-5"), real("1e-38")) == (12, -5, 1e-38)
    assert whole(least=0, most=3)("0") == 0 and whole(least=0, most=3)("3") == 3
    assert seed()(str(-2**63)) == -2**63 and seed()(str(2**63 - 1)) == 2**63 - 1


@pytest.mark.parametrize(("read", "text", "message"), [
    (whole(), "0", "must be a whole number from 1 to 2,147,483,647; got '0'"),
    (whole(least=0, most=3), "4", "from 0 to 3; got '4'"),
    (whole(), "1.5", "got '1.5'"), (whole(), "", "got ''"), (whole(), "ten", "got 'ten'"),
    (whole(), "9" * 5000, r"got '9{39}$"), (seed(), str(2**63), "from -9,223"),
    (real, "nan", "must be a finite number; got 'nan'"), (real, "-inf", "got '-inf'"),
    (real, "1e999", "got '1e999'"), (real, "warm", "got 'warm'"),
])
def test_what_no_use_can_take_is_refused(read, text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        read(text)


BAD = {
    "generate": ["--max-tokens", "--temperature", "--top-k", "--top-p", "--seed"],
    "chat": ["--max-tokens", "--temperature", "--top-k", "--top-p", "--seed"],
    "train": ["--steps", "--batch", "--seq-len", "--lr", "--vocab", "--dim", "--layers", "--heads",
              "--kv-heads", "--context", "--validation", "--seed"],
    "mini": ["--shards"], "convert": ["--shards"],
}


@pytest.mark.parametrize(("command", "flag"), [(c, flag) for c in BAD for flag in BAD[c]])
def test_every_number_of_every_command_is_refused_at_its_edge(command, flag, capsys):
    for value in ("nan", "inf", "9" * 400, "9" * 5000, "x", ""):
        with pytest.raises(SystemExit) as end:
            main([command, f"{flag}={value}"])
        shown = capsys.readouterr().err
        assert end.value.code == 2 and f"argument {flag}: must be a " in shown
        assert len(shown) < 3000


@pytest.mark.parametrize("words", [
    ["--temperature", "-1"], ["--top-p", "0"], ["--top-p", "1.5"], ["--temperature=-1e-300"],
])
def test_a_setting_without_a_meaning_is_refused_before_a_model_is_read(words, monkeypatch, capsys):
    from llama_from_scratch.commands import chat, generate

    for command in (generate, chat):
        monkeypatch.setattr(command, "load_model", lambda model: pytest.fail("it was read"))
        assert main([command.__name__.rpartition(".")[2], *words]) == 2
        assert f"got {float(words[-1].rpartition('=')[2])}" in capsys.readouterr().err
