"""`llama tokenize`: shows the tokens of a text, one per line."""

import argparse
import sys
from pathlib import Path

from llama_from_scratch.commands.numbers import whole
from llama_from_scratch.commands.writing import warn_of_special


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand and its arguments."""
    parser = commands.add_parser("tokenize", help="show how a text becomes tokens")
    parser.set_defaults(run=run)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("text", nargs="?", help="the text itself; - reads it from standard input")
    source.add_argument("--file", type=Path, help="a UTF-8 file with the text")
    parser.add_argument("--special", action="store_true",
                        help="read names of special tokens in the text as these tokens")
    parser.add_argument("--model", help="a checkpoint's folder or file, an id on the Hugging Face "
                        "hub, or a file of a tokenizer: tokenizer.json, tokenizer.model, "
                        "tokenizer.bin, a GGUF file (default: the bundled mini model)")
    parser.add_argument("--tokenizer", metavar="PATH", help="the file with the tokenizer of --model"
                        " (default: the checkpoint's own)")
    parser.add_argument("--ranks", type=whole(), metavar="N", help="the number of ranks in a "
                        "tokenizer.model of your own (default: as in Llama 3 or 4)")


def run(args: argparse.Namespace) -> int:
    """Prints each token's id and text, then the average number of bytes per token."""
    from llama_from_scratch import bundled
    from llama_from_scratch.checkpoint.vocabulary import read_tokenizer
    from llama_from_scratch.train.data import read_text

    model = bundled.path("mini") if args.model is None else args.model
    tokenizer = read_tokenizer(model, tokenizer=args.tokenizer, n_ranks=args.ranks)
    text = read_text(args.file) if args.file is not None else args.text
    if args.text == "-":
        text = sys.stdin.read()
    warn_of_special(tokenizer, text, is_special=args.special)
    ids = tokenizer.encode(text, allowed_special="all" if args.special else frozenset())
    names = {token: name for name, token in tokenizer.special_ids.items()}
    for token in ids:
        if token in names:
            print(f"{token:7}  {names[token]}")
            continue
        piece = tokenizer.decode_bytes([token])
        try:
            print(f"{token:7}  {piece.decode()!r}")
        except UnicodeDecodeError:  # part of a character
            print(f"{token:7}  {piece!r}")
    n_bytes = len(text.encode(errors="replace"))
    print(f"{len(ids):,} tokens for {n_bytes:,} bytes: "
          f"{n_bytes / max(len(ids), 1):.2f} bytes per token")
    return 0
