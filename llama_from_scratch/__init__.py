"""Every Llama, step by step: a course in notebooks and the small, exact library behind it.

`llama_from_scratch.load(folder)` returns the model and the tokenizer of a checkpoint. Importing
this package takes almost no time, because each part is loaded only where it is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_from_scratch.checkpoint.load import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from llama_from_scratch.checkpoint.load import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
