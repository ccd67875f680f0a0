"""Makes data/experiments again: the runs that chapters compare a change with.

    python data/make_baselines.py [NAME ...]    # all of them take about five minutes on one core

It runs each experiment of `BASELINES` with one thread and as many seeds, and keeps the record and
the curves of each run, without its checkpoint. The README's picture draws one of them. Compare by
loss: seconds are those of the machine that the record names.
"""

import argparse
import shutil

import torch

from llama_from_scratch import bundled
from llama_from_scratch.experiments import Store, named, run

BASELINES = {"small": 5, "rates": 5, "first-light": 1}
"""The experiments with a saved baseline, and the number of its seeds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="(default: all)")
    args = parser.parse_args()

    torch.set_num_threads(1)
    kept_in = Store(bundled.DATA / "experiments")
    for name in args.names or BASELINES:
        for trained in run(named(name), seeds=BASELINES[name], kept_in=kept_in, is_again=True).runs:
            shutil.rmtree(trained.folder / "checkpoint")
    # A lock is held only while a run is made.
    for lock in kept_in.folder.rglob(".*.lock"):
        lock.unlink()


if __name__ == "__main__":
    main()
