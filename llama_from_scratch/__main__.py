"""The command `llama`: train on any text, write, chat, convert checkpoints.

Each subcommand is a module of `commands`. `llama COMMAND --help` describes it.
"""

import argparse
import sys
from collections.abc import Sequence

from llama_from_scratch.commands import (
    chat,
    compare,
    convert,
    doctor,
    experiment,
    generate,
    inspect,
    mini,
    progress,
    terminal,
    tokenize,
    train,
    tune,
)

# In the order of `llama --help`.
COMMANDS = (train, tune, compare, experiment, generate, chat, tokenize, mini, convert, inspect,
            progress, doctor)


CLOSED = 141
"""The status of a program that a closed pipe ended: 128 + the number of SIGPIPE."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    The status is 0 on success, 1 if `doctor` finds a problem, 2 for an error that the user can fix,
    130 after Ctrl-C, and CLOSED if the output is no longer read. The error is printed on one line.
    Commands that set `is_lasting` finish their work without output instead of returning CLOSED.
    """
    with terminal.guarded() as output:
        try:
            return _run(argv, output)
        except terminal.OutputClosed:
            return CLOSED
        except KeyboardInterrupt:
            print(file=sys.stderr)
            return 130
        except (ValueError, OSError, ArithmeticError) as error:
            print(f"llama: {terminal.shown_line(str(error))}", file=sys.stderr)
            return 2


def _run(argv: Sequence[str] | None, output: terminal.Terminal) -> int:
    try:
        args = _parser().parse_args(argv)
        output.is_lasting = args.is_lasting
        return args.run(args)
    finally:
        output.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llama",
                                     description="Build, train and run small Llamas.")
    parser.set_defaults(is_lasting=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
