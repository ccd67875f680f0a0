"""Loading the model that a command was given, with its progress on the terminal."""

import argparse
import sys

from llama_from_scratch.commands.device import usable_device


def add_loading_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds in which numbers the model computes, and where."""
    parser.add_argument("--dtype", help="float32, bfloat16, float16 or float64 (default: that of "
                        "the files)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default cpu)")


def load_model(
    model: str | None, *, tokenizer: str | None = None, dtype: str | None = None,
    device: str = "cpu",
):
    """The model and tokenizer of a path or a hub id; those of the bundled mini model for None.

    `tokenizer`: the path of another tokenizer than that of the checkpoint. `dtype`: a name such as
    "bfloat16", or None for that of the files. Raises ValueError, before anything is read, for
    another name or a device that is not there.
    """
    from llama_from_scratch import bundled
    from llama_from_scratch.checkpoint.load import load
    from llama_from_scratch.checkpoint.opened import DTYPES
    from llama_from_scratch.config import nearest

    known = {str(each).removeprefix("torch."): each for each in DTYPES}
    if dtype is not None and dtype not in known:
        raise ValueError(f"a model computes in {', '.join(known)}; got --dtype {dtype}; "
                         f"{nearest(dtype, known)}")
    return load(bundled.path("mini") if model is None else model, tokenizer=tokenizer,
                device=usable_device(device), dtype=None if dtype is None else known[dtype],
                on_tensor=show_loading)


def show_loading(n_bytes_done: int, n_bytes: int) -> None:
    """Shows how much is read, on one line of a terminal, where it takes long enough to wonder."""
    if n_bytes > 100_000_000 and sys.stderr.isatty():
        print(f"\rloading: {n_bytes_done / n_bytes:4.0%} of {n_bytes / 1e9:.1f} GB",
              end="\n" if n_bytes_done == n_bytes else "", file=sys.stderr, flush=True)
