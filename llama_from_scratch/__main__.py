"""The command `llama`: train on any text, write, chat, convert checkpoints.

`llama COMMAND --help` says more about each of its subcommands, which are the modules of `commands`.
"""

import argparse
import sys
from collections.abc import Sequence

from llama_from_scratch.commands import (
    chat,
    convert,
    doctor,
    generate,
    inspect,
    mini,
    progress,
    terminal,
    tokenize,
    train,
)

# In the order of `llama --help`.
COMMANDS = (train, generate, chat, tokenize, mini, convert, inspect, progress, doctor)


CLOSED = 141
"""The status of a program that a closed pipe ended: 128 + the number of SIGPIPE."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    The status is 0; 1 if `doctor` finds something wrong; 2 for what the user can fix, which is
    printed in one line; 130 after Ctrl-C; CLOSED if the output is no longer read. Commands that
    set `is_lasting` do their work without output instead.
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
