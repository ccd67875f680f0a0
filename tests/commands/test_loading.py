import pytest
import torch
from tiny_checkpoints import edit_safetensors, tiny, tokenizer_for

from llama_from_scratch import bundled
from llama_from_scratch.__main__ import main
from llama_from_scratch.checkpoint.convert import write
from llama_from_scratch.commands.loading import load_model, place_of, show_loading


def test_loading_shows_how_far_it_is_in_a_terminal_and_nowhere_else(monkeypatch, capsys):
    for is_terminal in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda is_terminal=is_terminal: is_terminal)
        for n_done in (800_000_000, 1_600_000_000):
            show_loading(n_done, 1_600_000_000)
        show_loading(50, 100)  # done before one could read it
        shown = "\rloading:  50% of 1.6 GB\rloading: 100% of 1.6 GB\n"
        assert capsys.readouterr().err == (shown if is_terminal else "")


def test_without_a_name_the_bundled_mini_is_loaded(trained):
    assert load_model(None)[0].config.n_params > 500_000
    assert load_model(str(trained / "run"))[0].config.dim == 16


def test_the_course_s_own_models_have_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_model("world/agent")[0].config.vocab_size == 1152
    assert place_of("mini") == place_of(None) == bundled.path("mini")
    for other in ("meta-llama/Llama-3.2-1B", "world", "world/../mini", "../data/mini"):
        assert place_of(other) == other
    (tmp_path / "world" / "agent").mkdir(parents=True)
    assert place_of("world/agent") == "world/agent", "a path of one's own comes first"


@pytest.fixture
def mixed(tmp_path):
    """A checkpoint whose tensors have two dtypes."""
    folder = tmp_path / "mixed"
    write(folder, tiny("llama-3.1"), tokenizer=tokenizer_for("llama-3.1"), format="hugging-face")
    edit_safetensors(folder, lambda tensors: tensors.update(
        {"model.norm.weight": tensors["model.norm.weight"].bfloat16()}))
    return str(folder)


def test_a_checkpoint_of_several_dtypes_names_the_cure_that_the_command_has(mixed, capsys):
    command = ["generate", mixed, "--prompt", "the cat", "--max-tokens", "3"]
    assert main(command) == 2
    assert "on the command line --dtype bfloat16, or --dtype float32" in capsys.readouterr().err
    for dtype in ("bfloat16", "float32"):
        assert main([*command, "--dtype", dtype]) == 0
        assert capsys.readouterr().out.startswith("the cat")


def test_a_model_is_loaded_in_the_dtype_and_on_the_device_that_are_asked_for(trained):
    model, _ = load_model(str(trained / "run"), dtype="float64", device="cpu")
    assert (model.dtype, model.device.type) == (torch.float64, "cpu")


@pytest.mark.parametrize(("options", "message"), [
    (["--dtype", "bf16"], "--dtype must be one of float32, bfloat16, float16, float64; got "
                          "bf16; did you mean"),
    (["--dtype", "q8_0"], "got q8_0"), (["--device", "abacus"], "'abacus'"),
])
def test_another_dtype_or_device_is_refused_before_anything_is_read(options, message, refused):
    for command in ("generate", "chat"):
        refused([command, "no-such-folder", *options], message)
