"""`llama convert`: a checkpoint in another format."""

import argparse
import sys
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
    parser.add_argument("--chat-format", metavar="NAME", help="the chat format of A, such as "
                        "llama-3.1, if A was made for chats and its files do not name the format")
    parser.add_argument("--tokenizer", metavar="PATH", help="the file with the tokenizer of A "
                        "(default: the checkpoint's own)")
    target.add_form_arguments(parser, usual_dtype="as it is")


def run(args: argparse.Namespace) -> int:
    """Reads one checkpoint and writes the other."""
    from llama_from_scratch.checkpoint.convert import NO_CHATS, convert
    from llama_from_scratch.checkpoint.load import open_checkpoint

    convert(args.source, args.target, format=args.format, dtype=args.dtype,
            n_shards=args.shards, tokenizer=args.tokenizer,
            chat_format=args.chat_format, on_tensor=show_loading)
    if args.format in NO_CHATS and open_checkpoint(args.source).prompting.templates:
        print(f"llama: {args.format} cannot hold the chat template of {args.source}; name the "
              "format with --chat-format when you chat", file=sys.stderr)
    is_told = args.format in NO_CHATS
    target.print_written(args.target, chat_format=args.chat_format if is_told else None)
    return 0
