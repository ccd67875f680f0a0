import io

import fusion_looking
import pytest

from llama_from_scratch.__main__ import main
from llama_from_scratch.commands import generate as module
from llama_from_scratch.generate.generate import generate, text_of
from llama_from_scratch.generate.sampling import Sampling


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


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", ["0", "1.5"])
def test_a_text_continues_after_images(looker, photos, capsys, monkeypatch, temperature):
    model, tokenizer = looker
    monkeypatch.setattr(module, "load_model", lambda *args, **settings: looker)
    paths = [str(photos / "cat.png"), str(photos / "my dog's.png")]
    flags = ["--max-tokens", "20", "--temperature", temperature, "--top-p", "1", "--seed", "2"]
    assert main(["generate", "any", "--prompt", "the cat", *flags, "--image", paths[0], "--image",
                 paths[1]]) == 0
    text = tokenizer.encode("the cat")
    bos, image = tokenizer.special_ids["<|begin_of_text|>"], model.config.image_id

    def continued(ids, images):
        (answer,) = generate(model, [ids], images=[images], max_tokens=20, seed=2,
                             sampling=Sampling(temperature=float(temperature)),
                             stop_ids=tokenizer.stop_ids)
        return "the cat" + "".join(text_of(answer, tokenizer)) + "\n"

    assert capsys.readouterr().out == continued([bos, image, image, *text], paths)
    assert main(["generate", "any", "--special", "--prompt", "the<|image|> cat", *flags, "--image",
                 paths[0]]) == 0
    inside = [bos, *tokenizer.encode("the"), image, *tokenizer.encode(" cat")]
    assert capsys.readouterr().out == continued(inside, paths[:1]).replace("the cat",
                                                                           "the<|image|> cat", 1)
    assert main(["generate", "any", "--special", "--prompt", "the<|image|> cat"]) == 2
    assert "prompt 0 has 1 of these ids and 0 images" in capsys.readouterr().err


def test_images_are_refused_by_a_model_of_text_and_broken_ones_before_any(photos, trained, capsys):
    for model, path, message in ((str(trained / "run"), "cat.png", "Load one that sees, such as"),
                                 ("nowhere", "words.png", "this is text, 'a cat'")):
        assert main(["generate", model, "--image", str(photos / path)]) == 2
        shown = capsys.readouterr()
        assert message in shown.err and not shown.out


def test_a_text_continues_after_images_that_are_tokens(photos, capsys, monkeypatch):
    model, tokenizer = fusion_looking.speaker()
    monkeypatch.setattr(module, "load_model", lambda *args, **settings: (model, tokenizer))
    paths = [str(photos / "cat.png"), str(photos / "my dog's.png")]
    flags = ["--max-tokens", "9", "--temperature", "0"]
    assert main(["generate", "any", "--prompt", "the cat", *flags, "--image", paths[0], "--image",
                 paths[1]]) == 0
    bos, image = tokenizer.special_ids["<|begin_of_text|>"], model.config.image_id
    ids = [bos, image, image, *tokenizer.encode("the cat")]
    (answer,) = generate(model, [ids], images=[paths], max_tokens=9, stop_ids=tokenizer.stop_ids)
    assert capsys.readouterr().out == "the cat" + "".join(text_of(answer, tokenizer)) + "\n"
    too_long = ["--max-tokens", "505", "--temperature", "0", "--image", paths[0]]
    assert main(["generate", "any", "--prompt", "the cat", *too_long]) == 2
    assert "context holds 512 tokens" in capsys.readouterr().err
