import argparse

from llama_from_scratch.commands.loading import load_model
from llama_from_scratch.commands.writing import add_writing_arguments, sampling_of, write
from llama_from_scratch.generate.sampling import Sampling


def parse(*words):
    parser = argparse.ArgumentParser()
    add_writing_arguments(parser, usual_length="12 to 34")
    assert "12 to 34" in " ".join(parser.format_help().split())
    return parser.parse_args(words)


def test_every_option_of_sampling_reaches_it():
    assert sampling_of(parse()) == Sampling(temperature=0.7, top_p=0.95)
    words = ["--temperature", "0.5", "--top-k", "7", "--top-p", "0.3"]
    assert sampling_of(parse(*words)) == Sampling(temperature=0.5, top_k=7, top_p=0.3)


def test_the_prompt_is_printed_and_max_tokens_decides_how_much_follows(capsys):
    model, tokenizer = load_model(None)

    def text(n_tokens):
        args = parse("--temperature", "0", "--max-tokens", str(n_tokens))
        write(model, tokenizer, "Once", args, seed=0)
        return capsys.readouterr().out.removesuffix("\n")

    assert "Once" < text(2) < text(8) and text(8).startswith(text(2))
