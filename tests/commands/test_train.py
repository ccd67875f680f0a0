import json
import os
import shutil
import subprocess
import sys

import pytest
from command_line import SMALL, TEXT

import llama_from_scratch
from llama_from_scratch.__main__ import main


def train(data, out):
    return ["train", "--data", str(data), "--out", str(out), *SMALL]


def test_training_saves_a_model_that_loads_and_says_where(tmp_path, capsys):
    (tmp_path / "text.txt").write_text(TEXT)
    out = str(tmp_path / "run")
    assert main([*train(tmp_path / "text.txt", out), "--blank-lines"]) == 0
    shown = capsys.readouterr()
    assert "19 documents" in shown.out and f"saved in {out} after 6 steps" in shown.out
    assert "6/6" in shown.err and "bits per byte" in shown.err
    model, tokenizer = llama_from_scratch.load(out)
    assert (model.config.dim, model.config.n_layers, tokenizer.vocab_size) == (16, 2, 280)


def test_every_setting_of_the_command_reaches_the_run(trained):
    flags = ["--lr", "0.02", "--seed", "5", "--validation", "0.3", "--bf16", "--blank-lines"]
    out = trained / "set"
    assert main([*train(trained / "text.txt", out), *flags]) == 0
    settings = json.loads((out / "training.json").read_text())["settings"]
    expected = dict(peak_lr=0.02, seed=5, is_bf16=True, n_steps=6, batch_size=2, seq_len=16)
    assert expected.items() <= settings["config"].items()
    expected = dict(dim=16, n_heads=2, n_kv_heads=1, vocab_size=280, max_seq_len=64)
    assert expected.items() <= settings["model"].items()
    assert (settings["data"]["n_documents"], settings["validation"]["n_documents"]) == (14, 6)


def test_ctrl_c_keeps_what_was_learned_and_resume_goes_on(trained, capsys, monkeypatch):
    from llama_from_scratch.train import progress

    def stop(self, step):
        if step.step == 2:
            raise KeyboardInterrupt

    command = train(trained / "text.txt", trained / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(progress.TrainingProgress, "__call__", stop)
        assert main(command) == 0
    assert "after 3 steps" in (shown := capsys.readouterr().out) and "to continue: " in shown
    assert main(["train", "--out", str(trained / "stopped"), "--resume"]) == 0
    assert "after 6 steps" in capsys.readouterr().out
    stopped, whole = (json.loads((trained / name / "training.json").read_text())["steps"]
                      for name in ("stopped", "run"))
    assert [step["loss"] for step in stopped] == [step["loss"] for step in whole]


def steps_of(folder):
    return json.loads((folder / "training.json").read_text())["steps"]


def test_a_finished_run_goes_on_and_says_what_its_schedule_does(trained, tmp_path, capsys):
    shutil.copytree(trained / "run", tmp_path / "run")
    assert main(["train", "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert "complete after 6 steps; to continue it, give a larger" in capsys.readouterr().out
    assert main(["train", "--out", str(tmp_path / "run"), "--resume", "--steps", "10"]) == 0
    shown = capsys.readouterr().out
    assert "the run of 6 steps continues to 10; from step 6 on, its learning rate is as" in shown
    assert "after 10 steps" in shown
    steps = steps_of(tmp_path / "run")
    assert steps[:6] == steps_of(trained / "run") and len(steps) == 10
    assert steps[6]["lr"] > steps[5]["lr"] > steps[9]["lr"] * 0.99
    assert main(["train", "--out", str(tmp_path / "run"), "--resume", "--steps", "9"]) == 2
    assert "has taken 10, got n_steps=9" in capsys.readouterr().err


def test_a_run_finds_its_data_or_says_that_it_is_gone(tmp_path, capsys):
    (tmp_path / "text.txt").write_text(TEXT)
    out = tmp_path / "run"
    assert main([*train(tmp_path / "text.txt", out), "--blank-lines", "--every", "2"]) == 0
    (tmp_path / "text.txt").rename(tmp_path / "moved.txt")
    more = ["train", "--out", str(out), "--resume", "--steps"]
    assert main([*more, "8"]) == 2
    assert "text.txt, which no longer exists" in capsys.readouterr().err
    assert main([*more, "8", "--data", str(tmp_path / "moved.txt")]) == 0
    assert main([*more, "10"]) == 0, "it knows the new place"
    (tmp_path / "moved.txt").write_text(TEXT * 2)
    capsys.readouterr()
    assert main([*more, "12"]) == 2
    told = capsys.readouterr().err
    assert "data.n_documents is" in told and "from its weights in another folder (llama" in told
    assert len(steps_of(out)) == 10


def test_a_new_run_starts_from_the_weights_of_another(trained, tmp_path, capsys):
    (tmp_path / "more.txt").write_text(TEXT + "The cat and the dog sat on the mat.\n\n" * 20)
    old, out = str(trained / "run"), tmp_path / "new"
    command = ["train", "--from", old, "--steps", "4", "--batch", "2", "--seq-len", "16"]
    assert main([*command, "--data", str(tmp_path / "more.txt"), "--out", str(out)]) == 0
    assert f"a new run from the weights of {old}" in capsys.readouterr().out
    before, tokenizer = llama_from_scratch.load(old)
    after, same = llama_from_scratch.load(out)
    assert before.config == after.config and tokenizer.ranks == same.ranks
    first = steps_of(out)[0]
    assert first["step"] == 0 and first["loss"] < steps_of(trained / "run")[0]["loss"]
    assert main([*command, "--out", str(tmp_path / "same")]) == 0, "the run knows its data"
    settings = [json.loads((folder / "training.json").read_text())["settings"]["data"]
                for folder in (trained / "run", tmp_path / "same", out)]
    assert settings[0] == settings[1] != settings[2]


def test_any_checkpoint_can_be_started_from(trained, talker, tmp_path, capsys):
    command = ["train", "--from", talker, "--out", str(tmp_path / "new"), "--steps", "2",
               "--seq-len", "16"]
    assert main(command) == 2
    assert "trained on. Give a text with --data" in capsys.readouterr().err
    assert main([*command, "--data", str(trained / "text.txt")]) == 0
    assert len(steps_of(tmp_path / "new")) == 2


def test_a_run_in_progress_is_named_to_the_second_one(trained, tmp_path, capsys, monkeypatch):
    from llama_from_scratch.train import progress

    def second(self, step):
        if step.step == 1:
            script = ("import sys\nfrom llama_from_scratch.__main__ import main\n"
                      "sys.exit(main(sys.argv[1:]))")
            for extra in ([], ["--resume"]):
                ended = subprocess.run([sys.executable, "-c", script, *command, *extra], text=True,
                                       capture_output=True)
                assert ended.returncode == 2
                assert f"process {os.getpid()} on " in ended.stderr

    command = train(trained / "text.txt", tmp_path / "run")
    monkeypatch.setattr(progress.TrainingProgress, "__call__", second)
    assert main(command) == 0
    assert len(steps_of(tmp_path / "run")) == 6


def test_a_folder_is_read_with_the_chosen_suffixes_and_bad_files_are_named(tmp_path, capsys):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.py").write_text(TEXT)
    (folder / "b.py").write_text(TEXT)
    (folder / "c.txt").write_text("never read")
    (folder / "latin.py").write_bytes(b"caf\xe9")
    command = [*train(folder, tmp_path / "run"), "--suffix", ".py"]
    assert main(command) == 2
    assert "byte 3 is 0xe9" in capsys.readouterr().err
    assert main([*command, "--skip-bad-files"]) == 0
    shown = capsys.readouterr()
    assert f"left out {folder / 'latin.py'}" in shown.err and "1 documents" in shown.out


def test_defaults_fit_what_is_asked_for(trained):
    flags = dict(zip(SMALL[::2], SMALL[1::2], strict=True)) | {
        "--heads": "1", "--steps": "1", "--validation": "0.4"}
    del flags["--seq-len"], flags["--kv-heads"]
    out = trained / "fits"
    words = [word for pair in flags.items() for word in pair]
    assert main(["train", "--data", str(trained / "text.txt"), "--out", str(out), *words]) == 0
    settings = json.loads((out / "training.json").read_text())["settings"]
    assert settings["config"]["seq_len"] == 64 and settings["model"]["n_kv_heads"] == 1


@pytest.mark.parametrize(("command", "message"), [
    (["train", "--data", "nowhere.txt"], "nowhere.txt is not there"),
    ([*train("{text}", "{run}")], "already holds a checkpoint"),
    ([*train("{text}", "{run}"), "--resume", "--lr", "0.5"], "config.peak_lr is"),
    ([*train("{text}", "x"), "--heads", "3"], "n_heads must divide it; got dim=16"),
    ([*train("{text}", "x"), "--vocab", "200"], "got 200. Give at least 258"),
    ([*train("{text}", "x"), "--seq-len", "65"], "--seq-len 65, --context 64"),
    ([*train("{text}", "{run}"), "--resume", "--dim", "32"], "--dim is 16 there and 32 here"),
    ([*train("{text}", "x"), "--resume"], "needs a folder with the checkpoint of a run; got"),
    (["train", "--from", "{run}", "--out", "x", "--dim", "32"], "--dim is 16 there and 32 here"),
    (["train", "--from", "{run}", "--out", "x", "--seq-len", "65"],
     "--seq-len 65, and "),
    (["train", "--from", "nowhere", "--out", "x"], "nowhere"),
    (["train", "--from", "{run}", "--out", "x", "--resume"], "Choose one"),
    ([*train("{text}", "x"), "--dim", "2000000"], "training must fit into memory"),
    ([*train("{text}", "x"), "--dim", "2000000000"], "training must fit into memory"),
    ([*train("{text}", "x"), "--layers", "2000000000"], "training must fit into memory"),
    ([*train("{text}", "x"), "--batch", "2000000000"], "training must fit into memory"),
    ([*train("{text}", "."), "--steps", "3"], "the folder that this program runs in"),
    ([*train("{text}", "{text}/x")], "is a file, so"),
    (["train", "--data", "{empty}", "--out", "x"], "contains only white space"),
    (["train", "--data", "{text}", "--out", "x", "--device", "tpu"],
     "got device='tpu', which is not a device. Choose \"cpu\""),
])
def test_what_the_user_can_fix_is_one_line_and_status_2(command, message, refused):
    refused(command, message)


@pytest.mark.parametrize("flag", ["--every", "--dim", "--layers", "--batch", "--steps", "--vocab"])
@pytest.mark.parametrize("number", ["0", "-1", "1" + "0" * 18, "nan"])
def test_a_number_out_of_its_range_is_refused_with_the_range(flag, number, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "--out", str(tmp_path / "x"), flag, number])
    assert ended.value.code == 2
    assert f"{flag}: must be a whole number from 1 to 2,147,483,647" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
