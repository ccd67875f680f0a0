"""`llama convert`: a checkpoint in another format."""

import argparse
from pathlib import Path

from llama_from_scratch.commands import target
from llama_from_scratch.commands.loading import show_loading


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand and its arguments."""
    parser = commands.add_parser(
        "convert", help="write a checkpoint in another format",
        description="Reads a checkpoint of any format and writes it in another. Nothing is "
        "rounded unless --dtype asks for it.")
    parser.set_defaults(run=run, is_lasting=True)
    parser.add_argument("source", metavar="A",
                        help="a checkpoint's folder or file, or an id on the Hugging Face hub")
    parser.add_argument("target", metavar="B", type=Path, help=target.TARGET_HELP)
    parser.add_argument("--format", required=True, help=target.FORMAT_HELP)
    target.add_form_arguments(parser, usual_dtype="as it is")


def run(args: argparse.Namespace) -> int:
    """Reads one checkpoint and writes the other."""
    from llama_from_scratch.checkpoint.convert import convert

    convert(args.source, args.target, format=args.format, dtype=args.dtype,
            n_shards=args.shards, on_tensor=show_loading)
    target.print_written(args.target)
    return 0
