"""Makes data/fusion again: two ways to see, trained alike on handwritten digits.

    python data/make_fusion.py        # about five minutes on one core

Both begin with the text model of data/vision, which knows the words, and with an encoder that
learned by itself what is in each quarter of a picture. Then, in the same number of steps and with
the same examples, cross-attention learns as in chapter 22, and early fusion learns twice: with the
text model trained as well, and with the text model frozen. The model with early fusion and a
trained text is stored in bfloat16, and the shares of right answers of all three are in
results.json. One thread, so the same machine gives the same weights. `--steps 0.01` makes a
hundredth of the steps, and `--only "cross-attention"` trains one of the three.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from llama_from_scratch import bundled, load
from llama_from_scratch.train import mini_fusion
from llama_from_scratch.train.digits import Digits
from llama_from_scratch.train.exact_match import exact_match
from llama_from_scratch.train.fusing import (
    FusionStage,
    TileStage,
    train_fusion,
    train_tile_encoder,
    with_tile_eyes,
)
from llama_from_scratch.train.rates import SeeingStep
from llama_from_scratch.train.seeing import (
    AdapterStage,
    EncoderStage,
    train_adapter,
    train_encoder,
    with_eyes,
)
from llama_from_scratch.vision import detach

TASK = Digits()
KINDS = ("read", "larger", "side", "sum")
ASKED = (*KINDS, "sum")
"""Sums are asked twice as often, as in chapter 22."""
N_STEPS, N_ENCODER_STEPS, EVERY = 500, 450, 50
WAYS = ("early fusion", "cross-attention", "early fusion, frozen text")
STORED = WAYS[0]
"""The model whose weights are stored."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=bundled.DATA / mini_fusion.FOLDER)
    parser.add_argument("--steps", type=float, default=1.0, help="this share of the steps")
    parser.add_argument("--only", choices=WAYS, help="one way; the results of the others stay")
    args = parser.parse_args()
    torch.set_num_threads(1)
    n_steps, n_encoder = (max(round(n * args.steps), 2) for n in (N_STEPS, N_ENCODER_STEPS))
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / mini_fusion.RESULTS
    results = json.loads(file.read_text()) if args.only and file.exists() else {}
    for way in (args.only,) if args.only else WAYS:
        learn = crossed if way == "cross-attention" else fused
        model, tokenizer, curve = learn(way, n_steps=n_steps, n_encoder=n_encoder)
        if way == STORED:
            mini_fusion.write(args.out, model)
            model.to(torch.bfloat16).float()  # what the file holds
        seen, blind = (exact_match(model, TASK, tokenizer, kinds=KINDS, is_blind=is_blind)
                       for is_blind in (False, True))
        results[way] = {"n_steps": n_steps, "curve": curve, "share": seen.share(),
                        "kinds": seen.shares, "blind": blind.share()}
        print(way, f"{seen.share():.1%}", seen.shares, f"blind {blind.share():.1%}", flush=True)
        file.write_text(json.dumps({way: results[way] for way in WAYS if way in results},
                                   indent=1) + "\n")


def fused(way: str, *, n_steps: int, n_encoder: int) -> tuple[nn.Module, object, dict]:
    """Returns a model with early fusion, its tokenizer, and the shares while it learned."""
    text, tokenizer = text_model()
    model, curve = with_tile_eyes(text, tokenizer), {}
    train_tile_encoder(model.vision.encoder, TASK, stage=TileStage(n_steps=n_encoder))
    train_fusion(model, TASK, tokenizer, on_step=watching(model, tokenizer, curve),
                 stage=FusionStage(n_steps=n_steps, kinds=ASKED,
                                   text_lr=1e-3 if way == STORED else 0.0))
    return model, tokenizer, curve


def crossed(way: str, *, n_steps: int, n_encoder: int) -> tuple[nn.Module, object, dict]:
    """Returns a model with cross-attention, its tokenizer, and the shares while it learned."""
    text, tokenizer = text_model()
    model, curve = with_eyes(text, cross_layers=range(text.config.n_layers)), {}
    train_encoder(model.vision.encoder, TASK, stage=EncoderStage(n_steps=n_encoder))
    train_adapter(model, TASK, tokenizer, on_step=watching(model, tokenizer, curve),
                  stage=AdapterStage(n_steps=n_steps, kinds=ASKED))
    return model, tokenizer, curve


def text_model() -> tuple:
    """Returns the text model of data/vision, in float32, and its tokenizer."""
    seeing, tokenizer = load(bundled.path("vision"), dtype=torch.float32)
    return detach(seeing), tokenizer


def watching(
    model: nn.Module, tokenizer: object, curve: dict[int, float]
) -> Callable[[SeeingStep], None]:
    """Returns a function that adds the share of right answers of every 50th step to `curve`."""
    def watch(step: SeeingStep) -> None:
        if (step.step + 1) % EVERY == 0:
            found = exact_match(model, TASK, tokenizer, kinds=KINDS, n_images=100)
            curve[step.step + 1] = found.share()
            print(f"step {step.step + 1}: {step.loss:.3f} nats, {found.share():.1%}", flush=True)
    return watch


if __name__ == "__main__":
    main()
