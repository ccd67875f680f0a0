"""Makes data/mini again: a Llama of about a million parameters and its tokenizer, from the stories.

    python data/make_mini.py        # about a quarter of an hour on one core

The same machine gives the same weights. The last 5 % of the stories are kept for validation, and
the loss printed at the end is measured on them.
"""

import argparse
import sys
from pathlib import Path

import torch

from llama_from_scratch import bundled
from llama_from_scratch.checkpoint import native
from llama_from_scratch.config import LayerSpec, LlamaConfig
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import BEGIN_AND_END, Tokenizer
from llama_from_scratch.train import Packed, TrainConfig, read_documents, split_validation, train
from llama_from_scratch.train.progress import Progress, Terminal

CONFIG = LlamaConfig(
    dim=128, n_heads=4, n_kv_heads=2, ffn_dim=352, vocab_size=1024, max_seq_len=512,
    norm_eps=1e-5, rope_theta=1e4, layers=(LayerSpec(),) * 5, is_tied=True,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--out", type=Path, default=bundled.DATA / "mini")
    args = parser.parse_args()

    torch.set_num_threads(1)
    documents = read_documents(bundled.path("stories.txt"), separator="\n\n")
    stories, held_out = split_validation(documents, fraction=0.05)
    tokenizer = Tokenizer.train(stories, CONFIG.vocab_size, special_tokens=BEGIN_AND_END)
    torch.manual_seed(0)
    model = Llama(CONFIG)
    config = TrainConfig(n_steps=args.steps, batch_size=6, seq_len=384, peak_lr=4e-3, n_warmup=100,
                         validate_every=500)
    train(model, Packed(stories, tokenizer), config=config, validation=Packed(held_out, tokenizer),
          on_step=Progress(n_steps=args.steps, show=Terminal(sys.stdout)))
    native.save(args.out, model, tokenizer)
    print(f"{args.out}: {CONFIG.n_params:,} parameters")


if __name__ == "__main__":
    main()
