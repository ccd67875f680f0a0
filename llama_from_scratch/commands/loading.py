"""Loading the model that a command was given, with its progress on the terminal."""

import sys


def load_model(model: str | None, *, tokenizer: str | None = None):
    """The model and tokenizer of a path or a hub id; those of the bundled mini model for None.

    `tokenizer`: the path of another tokenizer than that of the checkpoint.
    """
    from llama_from_scratch import bundled
    from llama_from_scratch.checkpoint.load import load

    return load(bundled.path("mini") if model is None else model, tokenizer=tokenizer,
                on_tensor=show_loading)


def show_loading(n_bytes_done: int, n_bytes: int) -> None:
    """Shows how much is read, on one line of a terminal, where it takes long enough to wonder."""
    if n_bytes > 100_000_000 and sys.stderr.isatty():
        print(f"\rloading: {n_bytes_done / n_bytes:4.0%} of {n_bytes / 1e9:.1f} GB",
              end="\n" if n_bytes_done == n_bytes else "", file=sys.stderr, flush=True)
