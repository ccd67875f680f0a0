import json

import pytest

import llama_from_scratch
from llama_from_scratch.__main__ import main
from llama_from_scratch.checkpoint.inspect import chat_format

QUICK = ["--steps", "4", "--batch", "2", "--lr", "1e-3"]


@pytest.fixture
def dialogs(tmp_path):
    """A file of six dialogs."""
    file = tmp_path / "dialogs.jsonl"
    file.write_text("".join(json.dumps({"messages": [
        {"role": "user", "content": f"the cat {n}"}, {"role": "assistant", "content": "the mat"},
    ]}) + "\n" for n in range(6)))
    return str(file)


def test_a_model_is_tuned_saved_and_chats(talker, dialogs, tmp_path, capsys):
    out = str(tmp_path / "tuned")
    assert main(["tune", "sft", talker, "--data", dialogs, "--out", out, *QUICK]) == 0
    shown = capsys.readouterr()
    assert "5 dialogs to learn from, 1 to validate on" in shown.out and "Llama 3.1" in shown.out
    assert f"To talk to it: llama chat {out}" in shown.out and "4/4" in shown.err
    model, tokenizer = llama_from_scratch.load(out)
    before, _ = llama_from_scratch.load(talker)
    assert not (model.output.weight == before.output.weight).all()
    assert chat_format(model.config, tokenizer).name == "Llama 3.1"


def test_a_stopped_run_is_resumed_with_the_same_command(talker, dialogs, tmp_path, capsys):
    whole, cut = str(tmp_path / "whole"), str(tmp_path / "cut")
    command = ["tune", "sft", talker, "--data", dialogs, *QUICK]
    assert main([*command, "--out", whole]) == 0
    from llama_from_scratch.commands import tune

    def stopping(*args, **kwargs):
        show = original(*args, **kwargs)

        def on_step(step):
            show(step)
            if step.step == 1:
                raise KeyboardInterrupt

        return on_step

    original = tune.progress
    tune.progress = stopping
    try:
        assert main([*command, "--out", cut]) == 0
    finally:
        tune.progress = original
    assert "give the same command with --resume" in capsys.readouterr().out
    assert main([*command, "--out", cut, "--resume"]) == 0
    a, b = (llama_from_scratch.load(folder)[0].state_dict() for folder in (whole, cut))
    assert all((a[name] == b[name]).all() for name in a)


def test_a_base_model_gets_the_format_that_is_named(trained, dialogs, tmp_path, capsys):
    """The run of the fixture has no special tokens for dialogs, and says which it would need."""
    command = ["tune", "sft", str(trained / "run"), "--data", dialogs, "--out",
               str(tmp_path / "x"), *QUICK]
    assert main(command) == 2
    assert "Give one of tokenizer.chat_format.FORMATS" in capsys.readouterr().err
    assert main([*command, "--format", "llama-3.2"]) == 2
    assert "special token" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "message"), [
    (["--data", "{text}", "--out", "x"], "must be one JSON value"),
    (["--data", "nowhere.jsonl", "--out", "x"], "nowhere.jsonl"),
    (["--data", "{dialogs}", "--out", "x", "--format", "llama-9"], "--format is one of"),
    (["--data", "{dialogs}", "--out", "x", "--validation", "1.5"], "--validation is at least 0"),
    (["--data", "{dialogs}", "--out", "x", "--seq-len", "9999999"], "fit into the model's context"),
    (["--data", "{dialogs}", "--out", "x", "--seq-len", "4"], "a row holds 5 tokens"),
    (["--data", "{dialogs}", "--out", "{run}"], "already"),
])
def test_what_the_user_can_fix_is_one_line_and_status_2(
    arguments, message, refused, talker, dialogs
):
    refused(["tune", "sft", talker, *(part.replace("{dialogs}", dialogs) for part in arguments)],
            message)
