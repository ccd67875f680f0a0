"""`llama inspect`: shows what a checkpoint is and what it takes to run it."""

import argparse


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand and its arguments."""
    parser = commands.add_parser(
        "inspect", help="show what a checkpoint is and what it takes to run it",
        description="Shows the format, family, sizes, memory and chat format of a checkpoint. No "
        "weights are read.")
    parser.set_defaults(run=run)
    parser.add_argument("model", metavar="PATH",
                        help="a checkpoint's folder or file, or an id on the Hugging Face hub")


def run(args: argparse.Namespace) -> int:
    """Prints a table of facts."""
    from llama_from_scratch.checkpoint import facts, open_checkpoint

    rows = facts(open_checkpoint(args.model))
    for name, value in rows.items():
        print(f"{name:{max(map(len, rows))}}  {value}")
    return 0
