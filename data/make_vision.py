"""Makes data/vision again: a small Llama that sees scenes, and its tokenizer.

    python data/make_vision.py        # about 15 minutes on one core

Three stages with one thread, so the same machine gives the same weights: the words (stories and
questions about scenes and digits), the encoder, the adapter, both for scenes. The text model is
frozen after the first. It knows the special tokens of Llama 3.2 Vision, so each published layout
can hold the model. At the end it prints how many answers are right with and without the picture,
computed with the bfloat16 weights of the file. `--steps 0.01` makes a hundredth of the steps.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from llama_from_scratch import bundled
from llama_from_scratch.checkpoint import native
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer import released
from llama_from_scratch.train.data import Packed, read_documents, split_validation
from llama_from_scratch.train.digits import Digits
from llama_from_scratch.train.exact_match import exact_match
from llama_from_scratch.train.loss import evaluate
from llama_from_scratch.train.rates import SeeingStep
from llama_from_scratch.train.scenes import Scenes
from llama_from_scratch.train.seeing import (
    QUICK_WORDS,
    AdapterStage,
    EncoderStage,
    train_adapter,
    train_encoder,
    with_eyes,
)
from llama_from_scratch.train.words import small_text_config, train_words, words_tokenizer
from llama_from_scratch.vision.adapter import share_places

N_RANKS = 1024
TASK = Scenes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=bundled.DATA / "vision")
    parser.add_argument("--steps", type=float, default=1.0, help="this share of the steps")
    args = parser.parse_args()

    def n_steps(n: int) -> int:
        return max(round(n * args.steps), 2)

    torch.set_num_threads(1)
    stories, held_out = split_validation(
        read_documents(bundled.path("stories.txt"), separator="\n\n"), fraction=0.05)
    special_tokens = released.LLAMA_3_2_VISION
    tokenizer = words_tokenizer(stories, [TASK, Digits()], special_tokens=special_tokens,
                                vocab_size=N_RANKS + len(special_tokens))
    torch.manual_seed(0)
    text = Llama(small_text_config(tokenizer.vocab_size - 1))  # the last id stands for an image
    train_words(text, tokenizer, stories, [TASK, Digits()],
                stage=replace(QUICK_WORDS, n_steps=n_steps(300)))
    text.to(torch.bfloat16).float()  # what the file holds, so that the adapter learns with it
    print(f"stories: {evaluate(text, Packed(held_out, tokenizer), seq_len=256, batch_size=4)}")

    model = with_eyes(text, cross_layers=range(text.config.n_layers))
    train_encoder(model.vision.encoder, TASK, on_step=told("encoder"), stage=EncoderStage(
        n_steps=n_steps(1200), splits=("train", "hues")))
    train_adapter(model, TASK, tokenizer, on_step=told("adapter"),
                  stage=AdapterStage(n_steps=n_steps(4000)))
    share_places(model)
    model.to(torch.bfloat16)
    native.save(args.out, model, tokenizer)
    model.float()
    for split in ("test", "combinations"):
        seen, blind = (exact_match(model, TASK, tokenizer, split=split, is_blind=is_blind)
                       for is_blind in (False, True))
        print(f"{split}: {seen.share():.1%} right, {blind.share():.1%} without the pictures")
        for kind, share in seen.shares.items():
            print(f"    {kind:12} {share:6.1%} {blind.shares[kind]:6.1%}")
    print(f"{args.out}: {sum(p.numel() for p in model.parameters()):,} parameters")


def told(stage: str) -> Callable[[SeeingStep], None]:
    """Returns a function that prints the loss of every 100th step."""
    def tell(step: SeeingStep) -> None:
        if (step.step + 1) % 100 == 0:
            print(f"{stage} {step.step + 1}: {step.loss:.3f} nats", flush=True)
    return tell


if __name__ == "__main__":
    main()
