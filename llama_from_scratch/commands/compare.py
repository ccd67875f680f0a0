"""`llama compare`: whether two runs have the same numbers, step by step.

`llama experiment compare` is another question: whether a change helped, given the spread of seeds.
"""

import argparse
from pathlib import Path

from llama_from_scratch.commands.numbers import real
from llama_from_scratch.commands.terminal import shown_line


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand and its arguments."""
    parser = commands.add_parser(
        "compare", help="find the first step at which two runs differ",
        description="Compares the losses, gradient lengths, learning rates and validations of two "
        "runs step by step: for example the same run on two meshes, with two engines, or with two "
        "versions of the code.")
    parser.set_defaults(run=run)
    parser.add_argument("first", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument("second", type=Path, metavar="RUN", help="the folder of another run")
    parser.add_argument("--assert-equal", action="store_true",
                        help="end with the status 1 if they differ")
    parser.add_argument("--tolerance", type=real, default=0.0, metavar="X",
                        help="how far apart two numbers may be, relative to the larger one (default"
                        " 0: bit for bit)")


def run(args: argparse.Namespace) -> int:
    """Prints the first difference. Returns 1 if there is one that was not to be, otherwise 0."""
    from llama_from_scratch.checkpoint.json_file import differences
    from llama_from_scratch.train import resume
    from llama_from_scratch.train.difference import differences_of

    first, second = (resume.read(folder, what="comparing") for folder in (args.first, args.second))
    found = list(differences_of(first.steps, second.steps, tolerance=args.tolerance))
    how = "bit for bit" if args.tolerance == 0 else f"within {args.tolerance:g}"
    for line in differences(first.settings, second.settings)[:8]:
        print(shown_line(f"their settings differ: {line}"))
    if not found:
        print(f"equal {how}: {len(first.steps)} steps")
        return 0
    n_shared = min(len(first.steps), len(second.steps))
    n_equal = found[0].step
    print(shown_line(f"not equal {how}: {found[0]}"))
    if n_equal == n_shared:
        print(f"the first run has {len(first.steps)} steps and the second {len(second.steps)}; "
              f"those that both have are equal {how}")
    else:
        largest = max((each for each in found if each.step < n_shared), key=lambda each: each.size)
        n_steps = len({each.step for each in found if each.step < n_shared})
        print(f"the first {n_equal} steps are equal; {n_steps} of {n_shared} differ, most at "
              f"{largest}")
    return 1 if args.assert_equal else 0
