"""Makes data/recall.json again: how well small models find a pair that they read long ago.

    python data/make_recall.py                # several minutes on one core
    python data/make_recall.py --only-model   # data/recall.safetensors, in a minute

Models of two layers learn the task of `train.recall` with texts of 64 tokens, several patterns of
layers with several seeds each. Then they look for needles in texts of up to 32 times that length,
with and without temperature tuning. The bundled model is one of them, trained for longer, whose
context is stretched in chapter 25. One thread, so the same machine gives the same numbers.
`--steps 0.01` makes a hundredth of the steps, and `--out` writes to another place.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from llama_from_scratch import bundled
from llama_from_scratch.config import TemperatureTuning
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train.recall import (
    TRAINED,
    RecallStage,
    needle_map,
    recall_config,
    share_found,
    temper,
    train_recall,
)

SEEDS = {"RN": (0, 1, 2), "RG": (0, 1), "RR": (0,), "GG": (0,), "NN": (0,)}
"""The seeds of each pattern of layers."""
PLACES = ((64, 8), (64, 56), (256, 200), (1024, 900), (2048, 1800))
"""Lengths of texts, and distances of their needles, in tokens."""
STRENGTHS = (0.1, 0.3)
"""Of the temperature tuning that is switched on after the training, for texts of 1,024 and more."""
HAS_LEARNED = 1.0
"""A model with a larger loss than this, in nats, is not tested with texts of 2,048 tokens."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=bundled.DATA / "recall.json")
    parser.add_argument("--steps", type=float, default=1.0, help="this share of the steps")
    parser.add_argument("--texts", type=int, default=100,
                        help="needles of each kind, half as many in the longest texts")
    parser.add_argument("--only-model", action="store_true",
                        help="train the bundled model, and store it next to --out")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.only_model:
        make_model(args.out.with_suffix(".safetensors"), part=args.steps)
        return
    n_steps = max(round(RecallStage().n_steps * args.steps), 2)
    runs = []
    for pattern, seeds in SEEDS.items():
        for seed in seeds:
            runs.append(one(pattern, seed, stage=RecallStage(n_steps=n_steps),
                            n_texts=args.texts))
            print(pattern, seed, f"{runs[-1]['losses'][-1]:.3f}", runs[-1]["found"], flush=True)
            args.out.write_text(json.dumps({"runs": runs}, indent=1) + "\n")


def make_model(path: Path, *, part: float, seed: int = 1) -> None:
    torch.manual_seed(seed)
    model = Llama(recall_config("RG", max_seq_len=TRAINED))
    stage = RecallStage(n_steps=max(round(1500 * part), 2))
    losses = list(train_recall(model, stage=stage, seed=seed))
    save_file(model.state_dict(), path)
    print(f"{path}: {model.config.n_params:,} parameters, last loss {losses[-1]:.6f}")
    print("needles found:", needle_map(model, (32, TRAINED)))


def one(pattern: str, seed: int, *, stage: RecallStage, n_texts: int) -> dict:
    """Returns the losses of one training, and the shares of needles found afterwards."""
    torch.manual_seed(seed)
    model = Llama(recall_config(pattern))
    losses = list(train_recall(model, stage=stage, seed=seed))
    has_learned, found = losses[-1] < HAS_LEARNED, []
    for n_tokens, distance in PLACES:
        if n_tokens > 1024 and not has_learned:
            continue
        is_tuned = n_tokens >= 1024 and has_learned and "N" in pattern
        for strength in (0.0, *STRENGTHS) if is_tuned else (0.0,):
            temper(model, TemperatureTuning(floor=stage.n_tokens, strength=strength)
                   if strength else None)
            share = share_found(model, n_tokens, distance=distance,
                                n_texts=n_texts if n_tokens <= 1024 else n_texts // 2)
            found.append({"n_tokens": n_tokens, "distance": distance, "strength": strength,
                          "share": share})
    return {"pattern": pattern, "seed": seed, "losses": [round(x, 4) for x in losses],
            "found": found}


if __name__ == "__main__":
    main()
