"""`llama doctor`: what is missing or wrong on this machine for the course, and the cure."""

import argparse


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand, which has no arguments."""
    parser = commands.add_parser("doctor",
                                 help="say what is missing or wrong on this machine, and the cure")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints every symptom of this machine; the exit status is 1 if one is not ok, else 0."""
    from llama_from_scratch.commands.machine import look
    from llama_from_scratch.commands.symptoms import judge

    symptoms = judge(look())
    for symptom in symptoms:
        print(f"{'ok     ' if symptom.is_ok else 'PROBLEM'}  {symptom.name}: {symptom.found}")
        if symptom.cure:
            print(f"         -> {symptom.cure}")
    return 0 if all(symptom.is_ok for symptom in symptoms) else 1
