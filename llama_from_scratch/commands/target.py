"""What `llama mini` and `llama convert` share: the arguments and report of a written checkpoint."""

import argparse
from pathlib import Path

from llama_from_scratch.commands.numbers import whole

FORMAT_HELP = "hugging-face, meta, gguf, llama2c or native"
TARGET_HELP = "a new folder, or for gguf a new file"


def add_form_arguments(parser: argparse.ArgumentParser, *, usual_dtype: str) -> None:
    """Adds --dtype and --shards. `usual_dtype` is the default, as text for --help."""
    parser.add_argument("--dtype", help="float32, bfloat16, float16, and for gguf q8_0 "
                        f"(default: {usual_dtype})")
    parser.add_argument("--shards", type=whole(), default=1, metavar="N",
                        help="the number of weight files, for meta and hugging-face (default 1)")


def print_written(path: Path, *, chat_format: str | None = None) -> None:
    """Prints the files that were written, with their sizes in bytes, and commands to try on them.

    `chat_format`: the value of `llama chat --chat-format`, if the files cannot name the format.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        print(f"{file.stat().st_size:14,}  {file}")
    more = f" --chat-format {chat_format}" if chat_format else ""
    print(f"Look at it with: llama inspect {path}. Talk to it with: llama chat {path}{more}")
