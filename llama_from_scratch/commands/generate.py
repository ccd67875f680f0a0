"""`llama generate`: the continuation of a text."""

import argparse
import sys

from llama_from_scratch.commands import fusing, pictures
from llama_from_scratch.commands.loading import load_model
from llama_from_scratch.commands.writing import add_writing_arguments, sampling_of, write


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand and its arguments."""
    parser = commands.add_parser(
        "generate", help="continue a text",
        description="Prints the prompt and what the model writes after it. On a terminal, control "
        "characters are shown as escapes. A file or a pipe gets the text as it is.")
    parser.set_defaults(run=run)
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", default="", metavar="TEXT",
                        help="the beginning of the text; - reads it from standard input "
                        "(default: empty)")
    prompt.add_argument("--prompt-file", metavar="FILE",
                        help="a UTF-8 file with the prompt; a newline at its end is dropped")
    parser.add_argument("--special", action="store_true",
                        help="read names of special tokens in the prompt, such as <|eot_id|>, as "
                        "these tokens instead of text")
    parser.add_argument("--image", metavar="PATH", action="append", default=[],
                        help="an image before the prompt, for a model that sees; may be given "
                        "several times. With --special, <|image|> in the prompt is its place")
    add_writing_arguments(parser, usual_length="200")


def run(args: argparse.Namespace) -> int:
    """Prints the prompt and what the model writes after it."""
    sampling_of(args)  # refuses bad settings before a large model is read
    prompt, images = _prompt(args), pictures.read(args.image)
    model, tokenizer = load_model(args.model, tokenizer=args.tokenizer, dtype=args.dtype,
                                  device=args.device)
    fusing.fuse_for_writing(model, args.fused)
    write(model, tokenizer, prompt, args, seed=args.seed, decoder=_decoder(model, args),
          is_special=args.special, images=images)
    return 0


def _prompt(args: argparse.Namespace) -> str:
    from llama_from_scratch.train.data import read_text

    if args.prompt_file is not None:
        return read_text(args.prompt_file).removesuffix("\n")
    return sys.stdin.read().removesuffix("\n") if args.prompt == "-" else args.prompt


def _decoder(model, args: argparse.Namespace):
    """Returns a GreedyDecoder for temperature 0 if it can run this model, otherwise None."""
    from llama_from_scratch.generate.greedy import GreedyDecoder, can_decode

    return GreedyDecoder(model) if args.temperature == 0 and can_decode(model) else None
