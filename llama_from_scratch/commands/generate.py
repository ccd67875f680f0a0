"""`llama generate`: the continuation of a text."""

import argparse

from llama_from_scratch.commands.loading import load_model
from llama_from_scratch.commands.writing import add_writing_arguments, write


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand and its arguments."""
    parser = commands.add_parser("generate", help="continue a text")
    parser.set_defaults(run=run)
    parser.add_argument("--prompt", default="", help="the beginning (default: none)")
    add_writing_arguments(parser, usual_length="200")


def run(args: argparse.Namespace) -> int:
    """Prints the prompt and what the model writes after it."""
    model, tokenizer = load_model(args.model, dtype=args.dtype, device=args.device)
    write(model, tokenizer, args.prompt, args, seed=args.seed, decoder=_decoder(model, args))
    return 0


def _decoder(model, args: argparse.Namespace):
    """What writes greedily at the speed of memory, where it applies: plain parts on a CPU."""
    from llama_from_scratch.generate.greedy import GreedyDecoder, can_decode

    return GreedyDecoder(model) if args.temperature == 0 and can_decode(model) else None
