import json
import subprocess
import sys

import pytest
import torch
from tiny_checkpoints import tiny, tokenizer_for

import llama_from_scratch
from llama_from_scratch import doctor
from llama_from_scratch.__main__ import _show_loading, main
from llama_from_scratch.checkpoint import native
from llama_from_scratch.checkpoint.convert import write
from llama_from_scratch.generate.chat import Chat

TEXT = "The cat sat on the mat. The rat sat on the cat.\nThen the dog came home and all of them ate.\n\n" * 20
SMALL = ["--vocab", "280", "--dim", "16", "--layers", "2", "--heads", "2", "--kv-heads", "1", "--seq-len", "16",
         "--context", "64", "--batch", "2", "--steps", "6"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("main")
    (folder / "text.txt").write_text(TEXT)
    assert main(["train", "--data", str(folder / "text.txt"), "--out", str(folder / "run"), *SMALL]) == 0
    return folder


def test_training_saves_a_model_that_loads_and_says_where(tmp_path, capsys):
    (tmp_path / "text.txt").write_text(TEXT)
    out = str(tmp_path / "run")
    assert main(["train", "--data", str(tmp_path / "text.txt"), "--out", out, "--blank-lines", *SMALL]) == 0
    shown = capsys.readouterr()
    assert "19 documents" in shown.out and f"saved in {out} after 6 steps" in shown.out
    assert "6/6" in shown.err and "bits per byte" in shown.err
    model, tokenizer = llama_from_scratch.load(out)
    assert (model.config.dim, model.config.n_layers, tokenizer.vocab_size) == (16, 2, 280)


def test_every_setting_of_the_command_reaches_the_run(trained):
    flags = ["--lr", "0.02", "--seed", "5", "--validation", "0.3", "--bf16", "--blank-lines"]
    out = trained / "set"
    assert main(["train", "--data", str(trained / "text.txt"), "--out", str(out), *SMALL, *flags]) == 0
    settings = json.loads((out / "training.json").read_text())["settings"]
    expected = dict(peak_lr=0.02, seed=5, is_bf16=True, n_steps=6, batch_size=2, seq_len=16)
    assert expected.items() <= settings["config"].items()
    expected = dict(dim=16, n_heads=2, n_kv_heads=1, vocab_size=280, max_seq_len=64)
    assert expected.items() <= settings["model"].items()
    assert (settings["data"]["n_documents"], settings["validation"]["n_documents"]) == (14, 6)


def test_ctrl_c_keeps_what_was_learnt_and_resume_goes_on(trained, capsys, monkeypatch):
    from llama_from_scratch.train import progress

    def stop(self, step):
        if step.step == 2:
            raise KeyboardInterrupt

    command = ["train", "--data", str(trained / "text.txt"), "--out", str(trained / "stopped"), *SMALL]
    with monkeypatch.context() as patch:
        patch.setattr(progress.ProgressBar, "__call__", stop)
        assert main(command) == 0
    assert "after 3 steps" in (shown := capsys.readouterr().out) and "--resume goes on" in shown
    assert main([*command, "--resume"]) == 0
    assert "after 6 steps" in capsys.readouterr().out
    losses = [[step["loss"] for step in json.loads((trained / name / "training.json").read_text())["steps"]]
              for name in ("stopped", "run")]
    assert losses[0] == losses[1]


def test_a_folder_is_read_with_the_chosen_suffixes_and_bad_files_are_named(tmp_path, capsys):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.py").write_text(TEXT)
    (folder / "b.py").write_text(TEXT)
    (folder / "c.txt").write_text("never read")
    (folder / "latin.py").write_bytes(b"caf\xe9")
    command = ["train", "--data", str(folder), "--suffix", ".py", "--out", str(tmp_path / "run"), *SMALL]
    assert main(command) == 2
    assert "byte 3 is 0xe9" in capsys.readouterr().err
    assert main([*command, "--skip-bad-files"]) == 0
    shown = capsys.readouterr()
    assert f"left out {folder / 'latin.py'}" in shown.err and "1 documents" in shown.out


def test_generate_writes_the_prompt_and_a_continuation_that_a_seed_repeats(trained, capsys):
    def text(*flags):
        assert main(["generate", str(trained / "run"), "--prompt", "The cat", "--max-tokens", "12", *flags]) == 0
        return capsys.readouterr().out

    assert text().startswith("The cat") and len(text()) > len("The cat\n")
    assert text("--seed", "3") == text("--seed", "3")
    assert len({text("--seed", str(seed)) for seed in range(6)}) > 1
    assert text("--temperature", "0") == text("--temperature", "0", "--seed", "9")
    assert text("--top-k", "1") == text("--temperature", "0")


def test_chat_continues_each_opening_and_ends_at_an_empty_line(trained, capsys, monkeypatch):
    lines = iter(["The cat", "x" * 500, "The dog", "", "never read"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    assert main(["chat", str(trained / "run"), "--max-tokens", "8"]) == 0
    shown = capsys.readouterr()
    assert "continues stories" in shown.out and "\nThe cat" in shown.out and "The dog" in shown.out
    assert "context holds 64 tokens" in shown.err, "an opening that is too long does not end the conversation"
    assert next(lines) == "never read"


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    """A checkpoint with a chat format, of random weights."""
    folder = tmp_path_factory.mktemp("talker") / "model"
    write(folder, tiny("llama-3.1"), tokenizer=tokenizer_for("llama-3.1"), format="hugging-face")
    return str(folder)


def converse(monkeypatch, *lines):
    left = iter([*lines, ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(left))


def test_chat_with_a_model_that_has_a_format_answers_and_remembers(talker, capsys, monkeypatch):
    chats = []
    say = Chat.say
    monkeypatch.setattr(Chat, "say", lambda self, text, **settings: (chats.append(self), say(self, text, **settings))[1])
    converse(monkeypatch, "the cat", "/system Be short.", "the rat", "/reset", "the mat", "/help", "/system", "the end")
    assert main(["chat", talker, "--system", "Be long.", "--max-tokens", "5", "--temperature", "1"]) == 0
    shown = capsys.readouterr().out
    (chat,) = set(chats)
    assert "Chat in the format of Llama 3.1" in shown and "/reset forgets" in shown
    assert [m.content for m in chat.messages if m.role == "user"] == ["the mat", "the end"] and chat.system is None
    assert all(m.content in shown for m in chat.messages if m.role == "assistant")
    for words in ("(the model reads that from now on)", "(all forgotten)", "(commands are /reset",
                  "no system message from now on", "(cut here; say"):
        assert words in shown


def test_chat_says_what_is_wrong_with_a_line_and_goes_on(talker, capsys, monkeypatch):
    converse(monkeypatch, "x" * 400_000, "the cat")
    assert main(["chat", talker, "--max-tokens", "3"]) == 0
    shown = capsys.readouterr()
    assert "context holds 131072 tokens, and this message takes" in shown.err and "(cut here" in shown.out


def test_chat_tells_when_the_oldest_turns_are_forgotten(talker, capsys, monkeypatch):
    init = Chat.__init__
    monkeypatch.setattr(Chat, "__init__", lambda self, *args, **settings: init(self, *args, **settings, context=80))
    converse(monkeypatch, *["the cat sat on the mat"] * 6)
    assert main(["chat", talker, "--max-tokens", "5"]) == 0
    assert "(the context of 80 tokens is full: the first 2 messages are forgotten)" in capsys.readouterr().out


def test_ctrl_c_stops_an_answer_and_not_the_chat(talker, capsys, monkeypatch):
    say, n_asked = Chat.say, []

    def interrupted(self, text, **settings):
        n_asked.append(text)
        yield from list(say(self, text, **settings))[:2]
        if len(n_asked) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Chat, "say", interrupted)
    converse(monkeypatch, "the cat", "the rat")
    assert main(["chat", talker, "--max-tokens", "3"]) == 0
    assert n_asked == ["the cat", "the rat"] and capsys.readouterr().out.count("(stopped)") == 1


def test_any_model_can_be_made_to_write_stories(talker, capsys, monkeypatch):
    converse(monkeypatch, "The cat")
    assert main(["chat", talker, "--chat-format", "none", "--max-tokens", "3"]) == 0
    assert "continues stories" in (shown := capsys.readouterr().out) and "\nThe cat" in shown


def test_inspect_prints_the_table(talker, capsys):
    assert main(["inspect", talker]) == 0
    rows = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    rows = {name.strip(): value.strip() for name, value in rows.items()}
    assert rows["format"] == "Hugging Face" and rows["chat format"] == "Llama 3.1" and "llama-3.1" in rows["family"]


def test_convert_writes_another_format_and_names_its_files(talker, tmp_path, capsys):
    out = str(tmp_path / "new")
    assert main(["convert", talker, out, "--format", "meta", "--dtype", "bfloat16", "--shards", "2"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("consolidated.00.pth", "consolidated.01.pth", "params.json", f"llama inspect {out}"))
    assert llama_from_scratch.load(out)[0].output.weight.dtype == torch.bfloat16
    assert main(["convert", out, str(tmp_path / "x.gguf"), "--format", "gguf", "--dtype", "q8_0"]) == 0
    assert "x.gguf" in capsys.readouterr().out


def test_mini_writes_what_it_is_asked_for(tmp_path, capsys, monkeypatch):
    from llama_from_scratch.train import mini

    quick = mini.TRAINING.__class__(n_steps=2, n_warmup=1, batch_size=1, seq_len=64)
    monkeypatch.setattr(mini, "TRAINING", quick)
    monkeypatch.setattr(mini, "default_cache", lambda: tmp_path / "cache")
    out = str(tmp_path / "new")
    assert main(["mini", "--family", "llama-3.2", "--format", "hugging-face", "--shards", "2", "--dtype", "float32",
                 "--out", out]) == 0
    shown = capsys.readouterr()
    assert "model-00001-of-00002.safetensors" in shown.out and "2/2" in shown.err
    assert llama_from_scratch.load(out)[0].config == mini.small_config("llama-3.2")
    assert main(["mini", "--family", "llama-3.2", "--out", str(tmp_path / "meta")]) == 0
    shown = capsys.readouterr()
    assert "params.json" in shown.out and shown.err == "", "the second one is not trained"


def test_tokenize_reads_the_tokenizer_of_any_format(talker, capsys):
    assert main(["tokenize", "the cat", "--model", talker]) == 0
    ids = [int(row.split()[0]) for row in capsys.readouterr().out.splitlines()[:-1]]
    assert ids == tokenizer_for("llama-3.1").encode("the cat")


def test_chat_ends_at_the_end_of_input(trained, monkeypatch):
    def closed(prompt):
        raise EOFError

    monkeypatch.setattr("builtins.input", closed)
    assert main(["chat", str(trained / "run")]) == 0


def test_tokenize_shows_each_piece_and_its_id(trained, capsys):
    tokenizer = native.load_tokenizer(trained / "run")
    (trained / "note.txt").write_bytes("The cat é".encode())
    for source in (["The cat é"], ["--file", str(trained / "note.txt")]):
        assert main(["tokenize", *source, "--model", str(trained / "run")]) == 0
        *rows, total = capsys.readouterr().out.splitlines()
        ids = tokenizer.encode("The cat é")
        assert [int(row.split()[0]) for row in rows] == ids
        assert total == f"{len(ids)} tokens for 10 bytes: {10 / len(ids):.2f} bytes per token"
        assert rows[-1].endswith(r"b'\xa9'"), "half a character is shown as bytes"


def test_doctor_prints_every_finding_and_fails_if_one_is_bad(capsys, monkeypatch):
    good = doctor.Finding(name="Python", is_ok=True, found="3.11")
    bad = doctor.Finding(name="disk", is_ok=False, found="0 bytes free", cure="delete something")
    monkeypatch.setattr(doctor, "report", lambda: [good])
    assert main(["doctor"]) == 0
    monkeypatch.setattr(doctor, "report", lambda: [good, bad])
    assert main(["doctor"]) == 1
    assert "PROBLEM  disk: 0 bytes free\n         -> delete something" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["generate", "nowhere"], "as a path it is not there"),
        (["train", "--data", "nowhere.txt"], "nowhere.txt is not there"),
        (["train", "--data", "{text}", "--out", "{run}", *SMALL], "already holds a checkpoint"),
        (["train", "--data", "{text}", "--out", "{run}", *SMALL, "--resume", "--lr", "0.5"], "config.peak_lr is"),
        (["train", "--data", "{text}", "--out", "x", *SMALL, "--heads", "3"], "n_heads must divide it; got dim=16"),
        (["train", "--data", "{text}", "--out", "x", *SMALL, "--vocab", "200"], "at least 258; got 200"),
        (["train", "--data", "{text}", "--out", "x", *SMALL, "--seq-len", "65"], "--seq-len 65, --context 64"),
        (["train", "--data", "{empty}", "--out", "x"], "none but white space"),
        (["train", "--data", "{text}", "--out", "x", "--device", "tpu"], "cannot use the device 'tpu' here; it can use cpu"),
        (["generate", "{run}", "--prompt", "x" * 100], "context holds 64 tokens"),
        (["generate", "{run}", "--max-tokens", "5", "--temperature", "-1"], "temperature must be 0"),
        (["tokenize", "--file", "nowhere.txt", "--model", "{run}"], "No such file"),
        (["inspect", "nowhere"], "as a path it is not there"),
        (["convert", "nowhere", "x", "--format", "gguf"], "as a path it is not there"),
        (["convert", "{run}", "x", "--format", "onnx"], "formats that are written are"),
        (["convert", "{run}", "{text}", "--format", "gguf"], "there is something at"),
        (["convert", "{run}", "x", "--format", "meta", "--dtype", "int4"], "dtypes that are written are"),
        (["mini", "--family", "llama-7", "--out", "x"], "minis are of the families"),
        (["mini", "--out", "{text}"], "there is something at"),
        (["chat", "{run}", "--system", "Be short."], "a system message needs a chat format"),
        (["chat", "{run}", "--chat-format", "llama-9"], "no chat format is called 'llama-9'; did you mean"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_status_2(command, message, trained, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text(" \n")
    names = dict(text=str(trained / "text.txt"), run=str(trained / "run"), empty=str(tmp_path / "empty.txt"))
    assert main([part.format(**names) for part in command]) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.startswith("llama: ") and shown.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_the_command_runs_as_a_process(trained):
    command = [sys.executable, "-m", "llama_from_scratch"]
    text = subprocess.run([*command, "generate", str(trained / "run"), "--prompt", "The", "--max-tokens", "4"],
                          capture_output=True, text=True, check=True)
    assert text.stdout.startswith("The") and text.stderr == ""
    wrong = subprocess.run([*command, "generate", "nowhere"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
    assert subprocess.run([*command, "explode"], capture_output=True).returncode == 2


def test_help_is_there_at_once_because_nothing_heavy_is_loaded_for_it():
    script = ("import sys\nfrom llama_from_scratch.__main__ import main\n"
              "try: main(['--help'])\nexcept SystemExit: pass\n"
              "assert 'torch' not in sys.modules and 'numpy' not in sys.modules")
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert all(command in shown.stdout for command in ("train", "generate", "chat", "tokenize", "mini", "convert", "inspect",
                                                              "doctor"))


def test_progress_shows_the_exercises_and_ticks_off_by_hand(tmp_path, capsys, monkeypatch):
    from llama_from_scratch.lessons.exercises import progress

    monkeypatch.setattr(progress, "PROGRESS", tmp_path / "progress.json")
    assert main(["progress"]) == 0
    before = capsys.readouterr().out
    assert "12 rope" in before and "0 of " in before
    assert main(["progress", "--done", "12.4"]) == 0
    after = capsys.readouterr().out
    assert after.startswith("✓ exercise 12.4 is done") and "1 of " in after and after.count("■") == 1
    assert main(["progress", "--done", "12.99"]) == 2
    assert "chapter 12 has the exercises 12.1" in capsys.readouterr().err


def test_loading_shows_how_far_it_is_in_a_terminal_and_nowhere_else(monkeypatch, capsys):
    for is_terminal in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda is_terminal=is_terminal: is_terminal)
        for n_done in (800_000_000, 1_600_000_000):
            _show_loading(n_done, 1_600_000_000)
        _show_loading(50, 100)   # done before one could read it
        assert capsys.readouterr().err == ("\rloading:  50% of 1.6 GB\rloading: 100% of 1.6 GB\n" if is_terminal else "")
