"""Checks the types of values in a parsed tokenizer.json; the errors name the key.

Notebook 10. All Llamas.
"""

from typing import Any


def get(values: dict, key: str, kind: type) -> Any:
    """Returns the value of a key. Raises ValueError unless it is there and of this type."""
    return require(values.get(key), kind, f"{key!r}")


def require(value: Any, kind: type, what: str) -> Any:
    """Returns the value. Raises ValueError, naming it as `what`, unless it has this type."""
    if type(value) is not kind:
        raise ValueError(f"{what} must be a JSON {kind.__name__}; got {value!r:.80}. The file is "
                         "damaged, or is not the tokenizer.json of a Llama")
    return value
