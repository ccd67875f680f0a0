import json

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
        patch.setattr(progress.ProgressBar, "__call__", stop)
        assert main(command) == 0
    assert "after 3 steps" in (shown := capsys.readouterr().out) and "--resume goes on" in shown
    assert main([*command, "--resume"]) == 0
    assert "after 6 steps" in capsys.readouterr().out
    stopped, whole = (json.loads((trained / name / "training.json").read_text())["steps"]
                      for name in ("stopped", "run"))
    assert [step["loss"] for step in stopped] == [step["loss"] for step in whole]


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
    ([*train("{text}", "x"), "--vocab", "200"], "at least 258; got 200"),
    ([*train("{text}", "x"), "--seq-len", "65"], "--seq-len 65, --context 64"),
    (["train", "--data", "{empty}", "--out", "x"], "none but white space"),
    (["train", "--data", "{text}", "--out", "x", "--device", "tpu"],
     "cannot use the device 'tpu' here; it can use cpu"),
])
def test_what_the_user_can_fix_is_one_line_and_status_2(command, message, refused):
    refused(command, message)
