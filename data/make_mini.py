"""Makes data/mini again: a Llama of about a million parameters and its tokenizer, from the stories.

    python data/make_mini.py        # about 45 minutes on one core

It runs the experiment "mini" (`llama experiment show mini`) with one thread, so the same machine
gives the same weights. An interrupted run goes on where it stopped. The last 5 % of the stories are
kept for validation, and the loss printed at the end is measured on them.
"""

import argparse
from pathlib import Path

import torch

from llama_from_scratch import bundled
from llama_from_scratch.checkpoint import native
from llama_from_scratch.experiments import load, named, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=bundled.DATA / "mini")
    args = parser.parse_args()

    torch.set_num_threads(1)
    experiment = named("mini")
    trained = run(experiment)
    model, tokenizer = load(trained.runs[0], base=experiment)
    native.save(args.out, model, tokenizer)
    print(trained)
    print(f"{args.out}: {model.config.n_params:,} parameters")


if __name__ == "__main__":
    main()
