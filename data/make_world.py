"""Makes data/world again: a base model of stories and the small world, and an assistant.

    python data/make_world.py base          # about 20 minutes on one core
    python data/make_world.py assistant     # about 15 minutes on one core, from data/world/base

Both have one thread, so the same machine gives the same weights, and both are stored in bfloat16.
`base` reads plain text: the stories without the last 5 %, scenes with questions, and lists to copy.
It never sees a dialog. `assistant` learns from dialogs in Llama 3.2's format to answer, to obey an
instruction and to rewrite. What is printed at the end is measured with the stored weights.
`--steps 0.01` makes a hundredth of the steps.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import torch

from llama_from_scratch import bundled
from llama_from_scratch.checkpoint import native
from llama_from_scratch.config import LayerSpec, LlamaConfig
from llama_from_scratch.generate import generate
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer import Tokenizer
from llama_from_scratch.train import (
    Packed,
    TrainConfig,
    evaluate,
    read_documents,
    split_validation,
    train,
)
from llama_from_scratch.tune.world.documents import list_document, scene_document
from llama_from_scratch.tune.world.instructions import INSTRUCTIONS, instruct
from llama_from_scratch.tune.world.rewriting import rewriting
from llama_from_scratch.tune.world.words import COLORS, MARKS, NAMES, PLACES, TASTES, THINGS

SPECIAL_TOKENS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                  "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>")
VOCAB_SIZE = 1152
BASE = TrainConfig(n_steps=6000, batch_size=8, seq_len=256, peak_lr=4e-3, n_warmup=150,
                   validate_every=1000)


def stories() -> tuple[list[str], list[str]]:
    return split_validation(read_documents(bundled.path("stories.txt"), separator="\n\n"),
                            fraction=0.05)


def vocabulary(told: Sequence[str]) -> Tokenizer:
    """Returns a tokenizer of the stories, the world, and the marks of dialogs, calls and code.

    Numbers below 50, and the words of the world in capitals, become one token each.
    """
    rng = Random(0)
    texts = [*told[:1200], *(scene_document(rng) for _ in range(600)),
             *(list_document(rng) for _ in range(600))]
    for _ in range(800):
        name, other = rng.sample(NAMES, 2)
        texts += [instruct(rng, "train").user, rewriting(rng, "train").user, *SYNTAX,
                  *(f" {text}" for text in INSTRUCTIONS.values()),
                  f"[get(who='{name}', what='coins'), get(who='{other}', what='friend')]",
                  f"[send(who='{name}', coins=1)]", f"Send 4 coins to {other}."]
    words = (*NAMES, *THINGS, *COLORS, *TASTES, *PLACES)
    texts += [f" {word}" for word in (*words, *MARKS) for _ in range(200)]
    texts += [f" {word.upper()}" for word in words for _ in range(600)]
    texts += [f"{n}" for n in range(50) for _ in range(400)]
    return Tokenizer.train(texts, VOCAB_SIZE, special_tokens=SPECIAL_TOKENS)


SYNTAX = ("user", "assistant", "ipython", "system", "\n\n", "[calc(x='1+2')]", "def f(x): return",
          "x * 2 + 1", "Tools: get, calc, send.", "error: busy", "Read the note.", "The note says",
          "I do not know.", "I will not do that.", "Tell me about", "I hope that helps.",
          "What a nice day.", "That is all I know.", "How many coins do they have together?")


def read_base(told: Sequence[str]) -> list[str]:
    """Returns the documents of the base: stories twice, and in addition scenes and lists."""
    rng = Random(1)
    documents = [*told, *told, *(scene_document(rng) for _ in range(36_000)),
                 *(list_document(rng) for _ in range(50_000))]
    rng.shuffle(documents)
    return [each if rng.random() < 0.5 else " " + each for each in documents]


def share_copied(model: Llama, tokenizer: Tokenizer, *, n: int = 200) -> float:
    """Returns how many of `n` new lists of six words the model repeats without an error."""
    rng, prompts, expected = Random(2), [], []
    for _ in range(n):
        items = [rng.choice((*NAMES, *THINGS, *COLORS, *PLACES)) for _ in range(6)]
        text = " " + " ".join(items) + "."
        prompts.append(tokenizer.encode(text, bos=True))
        expected.append(tokenizer.encode(text))
    answers = generate(model, prompts, max_tokens=[len(ids) for ids in expected])
    return sum(a == b for a, b in zip(answers, expected, strict=True)) / n


def make_base(folder: Path, *, share: float) -> None:
    told, unseen = stories()
    tokenizer = vocabulary(told)
    config = LlamaConfig(dim=96, n_heads=4, n_kv_heads=2, ffn_dim=256,
                         vocab_size=tokenizer.vocab_size, max_seq_len=512, norm_eps=1e-5,
                         rope_theta=10_000.0, layers=(LayerSpec(),) * 4)
    torch.manual_seed(0)
    model = Llama(config)
    data = Packed(read_base(told), tokenizer)
    print(f"{config.n_params:,} parameters, {data.n_tokens:,} tokens in the stream")
    validation = Packed(unseen[:60], tokenizer)

    def show(step) -> None:
        if (step.step + 1) % 200 == 0 or step.validation:
            print(step.step + 1, f"{step.loss:.3f}", step.validation,
                  f"{time.process_time():.0f} s", flush=True)

    train(model, data, validation=validation, config=scaled(BASE, share), on_step=show)
    keep(folder, model, tokenizer)
    model.float()
    print("stories:", evaluate(model, validation, batch_size=8, seq_len=256))
    print(f"lists of six words copied without an error: {share_copied(model, tokenizer):.3f}")


def scaled(config: TrainConfig, share: float) -> TrainConfig:
    n_steps = max(round(config.n_steps * share), 2)
    return replace(config, n_steps=n_steps, n_warmup=min(config.n_warmup, n_steps // 2))


def keep(folder: Path, model: Llama, tokenizer: Tokenizer) -> None:
    native.save(folder, model.to(torch.bfloat16), tokenizer)
    print(f"{folder}: {model.config.n_params:,} parameters")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("base", "assistant"))
    parser.add_argument("--out", type=Path, default=bundled.DATA / "world")
    parser.add_argument("--steps", type=float, default=1.0, help="share of the steps")
    args = parser.parse_args()
    torch.set_num_threads(1)
    make = {"base": make_base}[args.what]
    make(args.out / args.what, share=args.steps)


if __name__ == "__main__":
    main()
