import pytest

import llama_from_scratch
from llama_from_scratch.__main__ import main


def test_mini_writes_what_it_is_asked_for(tmp_path, capsys, monkeypatch):
    from llama_from_scratch.train import mini

    quick = mini.TRAINING.__class__(n_steps=2, n_warmup=1, batch_size=1, seq_len=64)
    monkeypatch.setattr(mini, "TRAINING", quick)
    monkeypatch.setattr(mini, "default_cache", lambda: tmp_path / "cache")
    out = str(tmp_path / "new")
    flags = ["--format", "hugging-face", "--shards", "2", "--dtype", "float32"]
    assert main(["mini", "--family", "llama-3.2", *flags, "--out", out]) == 0
    shown = capsys.readouterr()
    assert "model-00001-of-00002.safetensors" in shown.out and "2/2" in shown.err
    assert llama_from_scratch.load(out)[0].config == mini.small_config("llama-3.2")
    assert main(["mini", "--family", "llama-3.2", "--out", str(tmp_path / "meta")]) == 0
    shown = capsys.readouterr()
    assert "params.json" in shown.out and shown.err == "", "the second one is not trained"


@pytest.mark.parametrize(("command", "message"), [
    (["mini", "--family", "llama-7", "--out", "x"], "the families with a mini are"),
    (["mini", "--out", "{text}"], "there is something at"),
])
def test_what_the_user_can_fix_is_one_line_and_status_2(command, message, refused):
    refused(command, message)
