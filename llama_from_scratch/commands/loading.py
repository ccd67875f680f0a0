"""Loads a command's model and shows the progress on the terminal."""

import argparse
import sys
from pathlib import Path


def add_loading_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --dtype and --device."""
    parser.add_argument("--dtype", help="float32, bfloat16, float16 or float64 (default: as in the "
                        "files)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default cpu)")


def load_model(
    model: str | None, *, tokenizer: str | None = None, dtype: str | None = None,
    device: str = "cpu",
):
    """Returns the model and tokenizer at a path or hub id, or a bundled model: see `place_of`.

    `tokenizer`: the path of a tokenizer to use instead of the checkpoint's own. `dtype`: a name
    such as "bfloat16", or None for the dtype of the files. Raises ValueError for an unknown dtype
    or an unusable device, before anything is read.
    """
    from llama_from_scratch.checkpoint.load import load
    from llama_from_scratch.checkpoint.opened import DTYPES
    from llama_from_scratch.config import nearest

    known = {str(each).removeprefix("torch."): each for each in DTYPES}
    if dtype is not None and dtype not in known:
        raise ValueError(f"--dtype must be one of {', '.join(known)}; got {dtype}; "
                         f"{nearest(dtype, known)}")
    return load(place_of(model), tokenizer=tokenizer,
                device=device, dtype=None if dtype is None else known[dtype],
                on_tensor=show_loading)


def place_of(model: str | None) -> str | Path:
    """Returns the path or name to load.

    Names of the course's own models, such as "mini" or "world/agent", are folders of its data/ if
    no such path exists here. None is the mini model.
    """
    from llama_from_scratch import bundled

    if model is None:
        return bundled.path("mini")
    own = bundled.DATA / model
    is_own = ".." not in own.parts and (own / "config.json").is_file()
    return own if is_own and not Path(model).exists() else model


def show_loading(n_bytes_done: int, n_bytes: int) -> None:
    """Shows how much was read, on one line of a terminal, if there is more than 0.1 GB to read."""
    if n_bytes > 100_000_000 and sys.stderr.isatty():
        print(f"\rloading: {n_bytes_done / n_bytes:4.0%} of {n_bytes / 1e9:.1f} GB",
              end="\n" if n_bytes_done == n_bytes else "", file=sys.stderr, flush=True)
