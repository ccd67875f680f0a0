"""Makes data/experiments again: the runs that chapters compare a change with.

    python data/make_baselines.py [NAME ...]    # all of them take about 15 minutes on one core

It runs each experiment of `BASELINES` and its `VARIANTS` with one thread and as many seeds, and
keeps the record and the curves of each run, without its weights. Of models with experts it also
keeps which experts each token of the validation text went to. The README's picture draws one of the
runs. Compare by loss: seconds are those of the machine that the record names.
"""

import argparse
import shutil

import torch

from llama_from_scratch import bundled
from llama_from_scratch.config import Experts
from llama_from_scratch.experiments import Experiment, Store, load, named, run
from llama_from_scratch.experiments.named import VARIANTS, NamedChange
from llama_from_scratch.experiments.running import Run, prepare
from llama_from_scratch.experiments.stored import EXPERT_USE
from llama_from_scratch.train.expert_use import use_of_experts

BASELINES = {"small": 5, "rates": 5, "first-light": 1, "experts": 2}
"""The experiments with a saved baseline, and the number of its seeds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="(default: all)")
    args = parser.parse_args()

    torch.set_num_threads(1)
    kept_in = Store(bundled.DATA / "experiments")
    for name in args.names or BASELINES:
        for change in (NamedChange(), *VARIANTS.get(name, {}).values()):
            variant = run(named(name), seeds=BASELINES[name], kept_in=kept_in, is_again=True,
                          replace=change.replace, **change.settings)
            print(variant, flush=True)
            for trained in variant.runs:
                keep_use(trained, named(name), change)
                shutil.rmtree(trained.folder / "checkpoint", ignore_errors=True)
                (trained.folder / "weights.safetensors").unlink(missing_ok=True)
    # A lock is held only while a run is made.
    for lock in kept_in.folder.rglob(".*.lock"):
        lock.unlink()


def keep_use(trained: Run, base: Experiment, change: NamedChange) -> None:
    """Writes the use of the experts of a run, if its model has some."""
    model, _ = load(trained, base=base, replace=change.replace)
    if isinstance(model.config.feed_forward(model.config.layers[0]), Experts):
        train = base.train
        use_of_experts(model, prepare(base).validation, batch_size=train.batch_size,
                       seq_len=train.seq_len).write(trained.folder / EXPERT_USE)


if __name__ == "__main__":
    main()
