"""Values of a parsed tokenizer.json by their type, or an error that names the key.

Notebook 10. All Llamas.
"""

from typing import Any


def get(values: dict, key: str, kind: type) -> Any:
    """Returns the value of a key. Raises ValueError unless it is there and of this type."""
    return require(values.get(key), kind, f"{key!r}")


def require(value: Any, kind: type, what: str) -> Any:
    """Returns the value. Raises ValueError, naming `what` it is, unless it is of this type."""
    if type(value) is not kind:
        raise ValueError(f"{what} is a JSON {kind.__name__}, got {value!r:.80}; the file is "
                         "damaged, or no tokenizer.json of a Llama")
    return value
