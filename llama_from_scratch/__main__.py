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
    tokenize,
    train,
)

# In the order of `llama --help`.
COMMANDS = (train, generate, chat, tokenize, mini, convert, inspect, progress, doctor)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    The status is 0; 1 if `doctor` finds something wrong; 2 for what the user can fix, which is
    printed in one line; 130 after Ctrl-C.
    """
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except (ValueError, OSError, ArithmeticError) as error:
        print(f"llama: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llama",
                                     description="Build, train and run small Llamas.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
