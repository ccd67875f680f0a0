"""Makes data/recall.json again: how well small models find a pair that they read long ago.

    python data/make_recall.py        # several minutes on one core

Models of two layers learn the task of `train.recall` with texts of 64 tokens, several patterns of
layers with several seeds each. Then they look for needles in texts of up to 64 times that length,
with and without temperature tuning. One thread, so the same machine gives the same numbers.
`--steps 0.01` makes a hundredth of the steps, and `--out` writes to another place.
"""

import argparse
import json
from pathlib import Path

import torch

from llama_from_scratch import bundled, files
from llama_from_scratch.config import TemperatureTuning
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train.recall import (
    RecallStage,
    recall_config,
    share_found,
    temper,
    train_recall,
)

SEEDS = {"RN": (0, 1, 2), "RG": (0, 1, 2), "RR": (0, 1), "GG": (0, 1), "NN": (0, 1)}
"""The seeds of each pattern of layers."""
PLACES = ((64, 8), (64, 32), (64, 56), (256, 200), (1024, 200), (1024, 900), (4096, 3600))
"""Lengths of texts, and distances of their needles, in tokens."""
STRENGTHS = (0.0, 0.1, 0.3, 1.0)
"""Of the temperature tuning that is switched on after the training; 0 is none."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=bundled.DATA / "recall.json")
    parser.add_argument("--steps", type=float, default=1.0, help="this share of the steps")
    parser.add_argument("--texts", type=int, default=100, help="needles of each kind")
    args = parser.parse_args()
    torch.set_num_threads(1)
    n_steps = max(round(RecallStage().n_steps * args.steps), 2)
    runs = []
    for pattern, seeds in SEEDS.items():
        for seed in seeds:
            runs.append(one(pattern, seed, stage=RecallStage(n_steps=n_steps),
                            n_texts=args.texts))
            print(pattern, seed, f"{runs[-1]['losses'][-1]:.3f}", runs[-1]["found"], flush=True)
            args.out.write_text(json.dumps({"runs": runs}, indent=1) + "\n")


def one(pattern: str, seed: int, *, stage: RecallStage, n_texts: int) -> dict:
    """Returns the losses of one training, and the shares of needles found afterwards."""
    torch.manual_seed(seed)
    model = Llama(recall_config(pattern))
    losses = train_recall(model, stage=stage, seed=seed)
    strengths = STRENGTHS if "N" in pattern and losses[-1] < 1 else STRENGTHS[:1]
    found = []
    for n_tokens, distance in PLACES:
        for strength in strengths:
            temper(model, TemperatureTuning(floor=stage.n_tokens, strength=strength)
                   if strength else None)
            if strength and n_tokens == stage.n_tokens and distance != 56:
                continue
            if n_tokens > 1024 and losses[-1] > 1:
                continue
            found.append({"n_tokens": n_tokens, "distance": distance, "strength": strength,
                          "share": share_found(model, n_tokens, distance=distance,
                                               n_texts=n_texts)})
    return {"pattern": pattern, "seed": seed, "losses": [round(x, 4) for x in losses],
            "found": found}


if __name__ == "__main__":
    main()
