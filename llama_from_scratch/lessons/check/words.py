"""Words for the messages of the checks: short descriptions of values, numbers with units, plurals.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

# A name's noun comes before the first of these: "the losses of the run".
PREPOSITION = re.compile(r" (?:of|for|at|in|on|to|by|with|without|after|before|from|under|per) ")


def describe(value: Any) -> str:
    """Returns a short description of a value: "a float32 tensor of shape (2, 3)"."""
    match value:
        case Tensor():
            return f"a {dtype_name(value)} tensor of shape {tuple(value.shape)}"
        case np.ndarray():
            return f"a {value.dtype} array of shape {value.shape}"
        case list() | tuple():
            return f"a {type(value).__name__} of {len(value)}: {short(value)}"
        case nn.Module():
            return f"the module {name_of(value)}"
        case _ if isinstance(value, Callable):
            return f"the {'class' if isinstance(value, type) else 'function'} {name_of(value)}"
    return short(value)


def short(value: Any) -> str:
    """Returns the value as Python writes it, cut off after 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def counted(n: int, unit: str) -> str:
    """Returns a number with its unit: "1 byte", "2,000 bytes"."""
    return f"{n:,} {unit}{'' if n == 1 else 's'}"


def is_plural(name: str) -> bool:
    """Returns whether the name of a value takes "are" and "have".

    Examples of such names are "your losses" and "the sizes of the layers".
    """
    noun = PREPOSITION.split(name)[0]
    return not name.startswith("what ") and re.search(r"[^saiu]s$", noun) is not None


def name_of(function: Any) -> str:
    """Returns the name of a function, of a class, or of an object's class."""
    return getattr(function, "__name__", type(function).__name__)


def dtype_name(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
