"""`llama progress`: which exercises of the course are done."""

import argparse


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand and its arguments."""
    parser = commands.add_parser("progress", help="show which exercises are done")
    parser.set_defaults(run=run)
    parser.add_argument("--done", metavar="12.4",
                        help="first tick off one that has no code to check")


def run(args: argparse.Namespace) -> int:
    """Prints the table of exercises, after it marked one as done if --done names it."""
    from llama_from_scratch.lessons import exercises

    if args.done is not None:
        exercises.passed(args.done)
    print(exercises.progress_table())
    return 0
