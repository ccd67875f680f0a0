"""What `llama mini` and `llama convert` share: in which form a checkpoint is written, and where."""

import argparse
from pathlib import Path

from llama_from_scratch.commands.numbers import whole

FORMAT_HELP = "hugging-face, meta, gguf, llama2c or native"
TARGET_HELP = "a new folder, or for gguf a new file"


def add_form_arguments(parser: argparse.ArgumentParser, *, usual_dtype: str) -> None:
    """Adds the numbers' type and the number of files; `usual_dtype` is text for --help."""
    parser.add_argument("--dtype", help="float32, bfloat16, float16, and for gguf q8_0 "
                        f"(default: {usual_dtype})")
    parser.add_argument("--shards", type=whole(), default=1, metavar="N",
                        help="how many weight files, in meta and hugging-face (default 1)")


def print_written(path: Path, *, chat_format: str | None = None) -> None:
    """Prints the files that were written, with their sizes in bytes, and what to do with them.

    `chat_format`: what `llama chat` must be told, because the files cannot say it.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        print(f"{file.stat().st_size:14,}  {file}")
    more = f" --chat-format {chat_format}" if chat_format else ""
    print(f"Look at it with: llama inspect {path}. Talk to it with: llama chat {path}{more}")
