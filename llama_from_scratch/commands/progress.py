"""`llama progress`: shows which exercises of the course are done."""

import argparse


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand and its arguments."""
    parser = commands.add_parser("progress", help="show which exercises are done")
    parser.set_defaults(run=run)
    parser.add_argument("--done", metavar="12.4",
                        help="first mark this exercise as done, if it has no code to check")


def run(args: argparse.Namespace) -> int:
    """Marks the exercise of --done as done, if there is one, and prints the table."""
    from llama_from_scratch.lessons import exercises

    if args.done is not None:
        exercises.passed(args.done)
    print(exercises.progress_table())
    return 0
