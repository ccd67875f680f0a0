"""Makes data/mixture again: a small Llama with experts that writes stories, and its tokenizer.

    python data/make_mixture.py        # about three minutes on one core

It runs the experiment "mixture" (`llama experiment show mixture`) with one thread, so the same
machine gives the same weights, and stores them in bfloat16. The loss printed at the end is measured
with the stored weights, on the stories that the experiment validates on.
"""

import argparse
from pathlib import Path

import torch

from llama_from_scratch import bundled
from llama_from_scratch.checkpoint import native
from llama_from_scratch.experiments import load, named, run
from llama_from_scratch.experiments.running import prepare
from llama_from_scratch.train import evaluate
from llama_from_scratch.train.expert_use import use_of_experts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=bundled.DATA / "mixture")
    args = parser.parse_args()

    torch.set_num_threads(1)
    experiment = named("mixture")
    trained = run(experiment)
    model, tokenizer = load(trained.runs[0], base=experiment)
    native.save(args.out, model.to(torch.bfloat16), tokenizer)
    print(trained)
    model.float()
    sizes = {"batch_size": 6, "seq_len": experiment.train.seq_len}
    unseen = prepare(experiment).validation
    print(f"bfloat16 weights: {evaluate(model, unseen, **sizes)}")
    use = use_of_experts(model, unseen, **sizes)
    for layer in range(len(use.counts)):
        print(f"layer {layer}: {use.balance(layer).n_effective:.2f} of 8 experts in effect")
    print(f"{args.out}: {model.config.n_params:,} parameters, "
          f"{model.config.n_active_params:,} of them active")


if __name__ == "__main__":
    main()
