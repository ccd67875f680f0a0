import io

import pytest

from llama_from_scratch.__main__ import main


def test_generate_writes_the_prompt_and_a_continuation_that_a_seed_repeats(trained, capsys):
    command = ["generate", str(trained / "run"), "--prompt", "The cat", "--max-tokens", "12"]

    def text(*flags):
        assert main([*command, *flags]) == 0
        return capsys.readouterr().out

    assert text().startswith("The cat") and len(text()) > len("The cat\n")
    assert text("--seed", "3") == text("--seed", "3")
    assert len({text("--seed", str(seed)) for seed in range(6)}) > 1
    assert text("--temperature", "0") == text("--temperature", "0", "--seed", "9")
    assert text("--top-k", "1") == text("--temperature", "0")


def test_temperature_0_writes_by_the_greedy_decoder_what_sampling_would(
    trained, monkeypatch, capsys
):
    from llama_from_scratch.generate import greedy

    command = ["generate", str(trained / "run"), "--prompt", "The cat", "--max-tokens", "12",
               "--temperature", "0"]
    made, decoder = [], greedy.GreedyDecoder
    monkeypatch.setattr(greedy, "GreedyDecoder", lambda model: made.append(model) or decoder(model))
    assert main(command) == 0 and len(made) == 1
    by_decoder = capsys.readouterr().out
    monkeypatch.setattr(greedy, "can_decode", lambda model: False)
    assert main(command) == 0 and len(made) == 1, "where it does not apply, generate writes"
    assert capsys.readouterr().out == by_decoder


def test_a_prompt_comes_from_a_file_or_standard_input(trained, capsys, monkeypatch):
    command = ["generate", str(trained / "run"), "--max-tokens", "5"]

    def text(*flags):
        assert main([*command, *flags]) == 0
        return capsys.readouterr().out

    (trained / "prompt.txt").write_text("The cat\nsat\n")
    expected = text("--prompt", "The cat\nsat")
    assert text("--prompt-file", str(trained / "prompt.txt")) == expected
    monkeypatch.setattr("sys.stdin", io.StringIO("The cat\nsat\n"))
    assert text("--prompt", "-") == expected


@pytest.mark.parametrize(("command", "message"), [
    (["generate", "nowhere"], "an existing path or a name"),
    (["generate", "{run}", "--prompt", "x" * 100], "context holds 64 tokens"),
    (["generate", "{run}", "--max-tokens", "5", "--temperature", "-1"], "temperature must be 0"),
])
def test_what_the_user_can_fix_is_one_line_and_status_2(command, message, refused):
    refused(command, message)
