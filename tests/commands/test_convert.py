import pytest
import torch

import llama_from_scratch
from llama_from_scratch.__main__ import main


def test_convert_writes_another_format_and_names_its_files(talker, tmp_path, capsys):
    out = str(tmp_path / "new")
    flags = ["--format", "meta", "--dtype", "bfloat16", "--shards", "2"]
    assert main(["convert", talker, out, *flags]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("consolidated.00.pth", "consolidated.01.pth",
                                          "params.json", f"llama inspect {out}"))
    assert llama_from_scratch.load(out)[0].output.weight.dtype == torch.bfloat16
    gguf = str(tmp_path / "x.gguf")
    assert main(["convert", out, gguf, "--format", "gguf", "--dtype", "q8_0"]) == 0
    assert "x.gguf" in capsys.readouterr().out


def test_convert_says_which_format_has_no_place_for_a_template(talker, tmp_path, capsys):
    out = str(tmp_path / "new")
    assert main(["convert", talker, out, "--format", "meta"]) == 0
    assert "meta cannot hold the chat template" in capsys.readouterr().err
    again = str(tmp_path / "again")
    flags = ["--format", "hugging-face", "--chat-format", "llama-3.1"]
    assert main(["convert", out, again, *flags]) == 0 and not capsys.readouterr().err
    assert main(["inspect", again]) == 0 and "Llama 3.1\n" in capsys.readouterr().out


@pytest.mark.parametrize(("command", "message"), [
    (["convert", "nowhere", "x", "--format", "gguf"], "an existing path or a name"),
    (["convert", "{run}", "x", "--format", "onnx"], "formats that can be written are"),
    (["convert", "{run}", "{text}", "--format", "gguf"], "there is something at"),
    (["convert", "{run}", "x", "--format", "meta", "--dtype", "int4"],
     "dtypes that can be written are"),
])
def test_what_the_user_can_fix_is_one_line_and_status_2(command, message, refused):
    refused(command, message)
