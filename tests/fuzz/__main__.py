"""The command `python -m tests.fuzz`: a table of what came of many damaged files."""

import argparse
import sys

from .runs import Table, run, work


def main() -> int:
    """Runs the command. Its status is 1 if there is a finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--mutations", type=int, default=2000, help="how many (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the sequence (default 0)")
    parser.add_argument("--from", dest="first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.first, args.mutations, seed=args.seed)
        return 0
    table = Table()

    def count(number: int, outcome: list[str]) -> None:
        table.add(number, outcome)
        if (number + 1) % 10_000 == 0:
            n = sum(map(len, table.findings.values()))
            print(f"{number + 1:,} cases, {n} findings", file=sys.stderr, flush=True)

    try:
        run(args.mutations, seed=args.seed, on_outcome=count)
    except KeyboardInterrupt:
        print("stopped early; until then:", file=sys.stderr)
    print(table)
    return 1 if table.findings else 0


if __name__ == "__main__":
    sys.exit(main())
