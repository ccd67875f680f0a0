"""Makes data/fusion again: two ways to see, trained alike on handwritten digits.

    python data/make_fusion.py        # about five minutes on one core

Both begin with the text model of data/vision, which knows the words, and with an encoder that
learned by itself what is in each quarter of a picture. Then, in the same number of steps and with
the same examples, cross-attention learns as in chapter 22, and early fusion learns twice: with the
text model trained as well, and with the text model frozen. The model with early fusion and a
trained text is stored in bfloat16, and the shares of right answers of all three are in
results.json. One thread, so the same machine gives the same weights. `--steps 0.01` makes a
hundredth of the steps.
"""

import argparse
import copy
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=bundled.DATA / mini_fusion.FOLDER)
    parser.add_argument("--steps", type=float, default=1.0, help="this share of the steps")
    args = parser.parse_args()
    torch.set_num_threads(1)
    n_steps, n_encoder = (max(round(n * args.steps), 2) for n in (N_STEPS, N_ENCODER_STEPS))
    args.out.mkdir(parents=True, exist_ok=True)
    results = {}

    def keep(name: str, curve: dict, model: nn.Module, tokenizer: object) -> None:
        seen, blind = (exact_match(model, TASK, tokenizer, kinds=KINDS, is_blind=is_blind)
                       for is_blind in (False, True))
        results[name] = {"n_steps": n_steps, "curve": curve, "share": seen.share(),
                         "kinds": seen.shares, "blind": blind.share()}
        print(name, f"{seen.share():.1%}", seen.shares, f"blind {blind.share():.1%}", flush=True)
        (args.out / mini_fusion.RESULTS).write_text(json.dumps(results, indent=1) + "\n")

    text, tokenizer = text_model()
    fused = with_tile_eyes(text, tokenizer)
    train_tile_encoder(fused.vision.encoder, TASK, stage=TileStage(n_steps=n_encoder))
    frozen = copy.deepcopy(fused)
    for name, model, text_lr in (("early fusion", fused, 1e-3),
                                 ("early fusion, frozen text", frozen, 0.0)):
        curve: dict[int, float] = {}
        train_fusion(model, TASK, tokenizer, on_step=watching(model, tokenizer, curve),
                     stage=FusionStage(n_steps=n_steps, kinds=ASKED, text_lr=text_lr))
        if model is fused:
            mini_fusion.write(args.out, model)
            model.to(torch.bfloat16).float()  # what the file holds
        keep(name, curve, model, tokenizer)

    text, tokenizer = text_model()
    crossed = with_eyes(text, cross_layers=range(text.config.n_layers))
    train_encoder(crossed.vision.encoder, TASK, stage=EncoderStage(n_steps=n_encoder))
    curve = {}
    train_adapter(crossed, TASK, tokenizer, on_step=watching(crossed, tokenizer, curve),
                  stage=AdapterStage(n_steps=n_steps, kinds=ASKED))
    keep("cross-attention", curve, crossed, tokenizer)


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
