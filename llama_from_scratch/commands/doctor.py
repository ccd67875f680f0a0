"""`llama doctor`: shows what the course lacks on this machine, and how to fix it."""

import argparse


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand, which has no arguments."""
    parser = commands.add_parser("doctor",
                                 help="show what is missing or wrong on this machine, with cures")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints every symptom of this machine. Returns 0 if all are ok, otherwise 1."""
    from llama_from_scratch.commands.machine import look
    from llama_from_scratch.commands.symptoms import judge

    symptoms = judge(look())
    for symptom in symptoms:
        print(f"{'ok     ' if symptom.is_ok else 'PROBLEM'}  {symptom.name}: {symptom.found}")
        if symptom.cure:
            print(f"         -> {symptom.cure}")
    return 0 if all(symptom.is_ok for symptom in symptoms) else 1
