"""`llama mini`: writes a small checkpoint with the files of a published one."""

import argparse
import sys
from pathlib import Path

from llama_from_scratch.commands import target


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand and its arguments."""
    parser = commands.add_parser(
        "mini", help="write a small checkpoint with the files of a published one",
        description="Writes a checkpoint with the files, names and dtype of a published Llama, "
        "but thousands of times smaller. It tells stories, and chats in its family's format. The "
        "first mini of a family is trained in two minutes and kept for later calls.")
    parser.set_defaults(run=run, is_lasting=True)
    parser.add_argument("--family", default="llama-2", help="llama-1, llama-2, llama-3, llama-3.1, "
                        "llama-3.2, llama-3.3, llama-4 (its text model) or llama-3.2-vision, "
                        "which sees images and is bundled (default llama-2)")
    parser.add_argument("--out", type=Path, required=True, metavar="B", help=target.TARGET_HELP)
    parser.add_argument("--format", default="meta", help=f"{target.FORMAT_HELP} (default meta)")
    target.add_form_arguments(parser, usual_dtype="as published")


def run(args: argparse.Namespace) -> int:
    """Trains the family's mini if it is not in the cache, and writes it."""
    from llama_from_scratch.checkpoint.convert import NO_CHATS
    from llama_from_scratch.tokenizer.chat_format import FORMATS
    from llama_from_scratch.train.mini import TRAINING, mini
    from llama_from_scratch.train.progress import TerminalLine, TrainingProgress

    show = TrainingProgress(n_steps=TRAINING.n_steps, show=TerminalLine(sys.stderr))
    mini(args.out, family=args.family, format=args.format, dtype=args.dtype,
         n_shards=args.shards, on_step=show)
    is_told = args.format in NO_CHATS and args.family in FORMATS
    target.print_written(args.out, chat_format=args.family if is_told else None)
    return 0
