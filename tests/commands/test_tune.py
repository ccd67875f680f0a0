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


def test_adapters_are_trained_saved_alone_and_merged(talker, dialogs, tmp_path, capsys):
    out, merged = str(tmp_path / "adapters"), str(tmp_path / "merged")
    command = ["tune", "sft", talker, "--data", dialogs, "--lora", "2", *QUICK]
    assert main([*command, "--out", out]) == 0
    shown = capsys.readouterr().out
    assert "parameters are trained" in shown and f"llama tune merge {talker} {out}" in shown
    assert (tmp_path / "adapters" / "adapter_model.safetensors").exists()
    assert main(["tune", "merge", talker, out, "--out", merged]) == 0
    before, _ = llama_from_scratch.load(talker)
    after, tokenizer = llama_from_scratch.load(merged)
    assert not (before.layers[0].attention.wq.weight == after.layers[0].attention.wq.weight).all()
    assert (before.output.weight == after.output.weight).all()
    assert chat_format(after.config, tokenizer).name == "Llama 3.1"
    assert main(["tune", "merge", talker, out, "--out", merged]) == 2
    assert main(["tune", "merge", merged, out, "--out", str(tmp_path / "x")]) == 2
    assert "belongs to the weights that it was trained on" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_model_learns_preferences(talker, tmp_path, capsys):
    file, out = tmp_path / "pairs.jsonl", str(tmp_path / "tuned")
    file.write_text("".join(json.dumps({
        "prompt": f"the cat {n}", "chosen": "the mat", "rejected": "the rat"}) + "\n"
        for n in range(4)))
    assert main(["tune", "dpo", talker, "--data", str(file), "--out", out, *QUICK]) == 0
    assert "4 pairs to learn from" in capsys.readouterr().out
    before, after = (llama_from_scratch.load(folder)[0] for folder in (talker, out))
    assert not (before.output.weight == after.output.weight).all()
    assert main(["tune", "dpo", talker, "--data", str(file), "--out", str(tmp_path / "x"),
                 "--beta", "0"]) == 2
    assert "beta must be" in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_a_base_model_gets_the_format_that_is_named(trained, dialogs, tmp_path, capsys):
    """The run of the fixture has no special tokens for dialogs, and says which it would need."""
    command = ["tune", "sft", str(trained / "run"), "--data", dialogs, "--out",
               str(tmp_path / "x"), *QUICK]
    assert main(command) == 2
    assert "Give one with --format: llama-2, llama-3" in capsys.readouterr().err
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


REWARD = """
def letters(entry, text, is_finished):
    assert entry["n"] >= 0
    return sum(c.isalpha() for c in text) / max(len(text), 1)

def constant(entry, text, is_finished):
    return 1.0

def broken(entry, text, is_finished):
    return entry["answer"]

def nothing(entry, text, is_finished):
    return float("nan")

def short(text):
    return 1.0
"""
FEW = ["--steps", "4", "--prompts", "2", "--answers", "4", "--max-tokens", "6", "--lr", "1e-2"]


@pytest.fixture
def rewarded(tmp_path):
    """A file of prompts, and one of rewards."""
    file, reward = tmp_path / "prompts.jsonl", tmp_path / "score.py"
    file.write_text("".join(json.dumps({"prompt": f"the cat {n}", "n": n}) + "\n"
                            for n in range(4)))
    reward.write_text(REWARD)
    return str(file), str(reward)


@pytest.fixture
def uncut(monkeypatch):
    """Random weights hardly ever end an answer; with this, one that is cut off is paid too."""
    import dataclasses

    from llama_from_scratch.tune.policy import records

    for name, method in records.METHODS.items():
        monkeypatch.setitem(records.METHODS, name,
                            dataclasses.replace(method, max_cut_reward=None))


@pytest.mark.parametrize("method", ["grpo", "dapo", "reinforce"])
def test_a_model_learns_what_a_function_of_the_user_pays(
    talker, rewarded, uncut, method, tmp_path, capsys
):
    data, reward = rewarded
    out = str(tmp_path / "tuned")
    assert main(["tune", "grpo", talker, "--data", data, "--reward", f"{reward}:letters", "--out",
                 out, "--method", method, *FEW]) == 0
    shown = capsys.readouterr()
    assert "4 prompts to learn from" in shown.out and f"llama chat {out}" in shown.out
    assert "4/4, mean reward" in shown.err and "at the last" in shown.out
    before, after = (llama_from_scratch.load(folder)[0] for folder in (talker, out))
    assert not (before.output.weight == after.output.weight).all()


def test_a_run_by_reward_is_resumed_with_more_steps(talker, rewarded, uncut, tmp_path, capsys):
    data, reward = rewarded
    out = str(tmp_path / "tuned")
    command = ["tune", "grpo", talker, "--data", data, "--reward", f"{reward}:letters", "--out",
               out, *FEW]
    assert main(command) == 0
    assert main(command) == 2 and "already" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    assert "after 4 steps" in capsys.readouterr().out
    assert main([*command, "--resume", "--answers", "3"]) == 2
    assert "n_answers" in capsys.readouterr().err


@pytest.mark.parametrize(("reward", "message"), [
    ("constant", "earn different rewards"), ("broken", "it raised KeyError: 'answer'"),
    ("nothing", "one finite number"), ("short", "short(entry, text, is_finished)"),
    ("leters", "letters"),
])
def test_a_reward_that_cannot_teach_is_refused(
    reward, message, talker, rewarded, uncut, tmp_path, capsys
):
    data, file = rewarded
    assert main(["tune", "grpo", talker, "--data", data, "--reward", f"{file}:{reward}", "--out",
                 str(tmp_path / "x"), *FEW]) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.splitlines()[-1].startswith("llama: ")


@pytest.mark.parametrize(("arguments", "message"), [
    (["--data", "{text}", "--reward", "{file}:letters"], "must be one JSON value"),
    (["--data", "{data}", "--reward", "{file}"], "FILE.py:FUNCTION"),
    (["--data", "{data}", "--reward", "nowhere.py:letters"], "no file at nowhere.py"),
    (["--data", "{data}", "--reward", "{file}:letters", "--answers", "1"], "at least 2; got 1"),
    (["--data", "{data}", "--reward", "{file}:letters", "--temperature", "0"], "temperature must"),
    (["--data", "{data}", "--reward", "{file}:letters", "--lr", "0"], "peak_lr must"),
])
def test_bad_input_to_learning_by_reward_is_one_line(arguments, message, refused, talker, rewarded):
    data, file = rewarded
    filled = [part.replace("{data}", data).replace("{file}", file) for part in arguments]
    refused(["tune", "grpo", talker, *filled, "--out", "x"], message)


def test_a_constant_reward_is_refused_even_if_answers_that_are_cut_off_earn_less(
    talker, rewarded, tmp_path, capsys
):
    """Random weights end some answers within 6 ids, and those that do not earn 0."""
    data, file = rewarded
    command = ["tune", "grpo", talker, "--data", data, "--reward", f"{file}:constant", "--out",
               str(tmp_path / "x"), *FEW, "--answers", "16", "--max-tokens", "20"]
    assert main(command) == 2
    shown = capsys.readouterr().err
    assert ":constant returned 1.0 for every answer of the first 4 steps" in shown
    assert "100% of the groups equal" not in shown.splitlines()[0]
