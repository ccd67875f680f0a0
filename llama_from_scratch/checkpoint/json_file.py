"""Reads and writes the JSON files of a checkpoint, and compares them key by key.

Every error names the file.

Notebook 17.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_from_scratch import foreign
from llama_from_scratch.foreign import shown


def read_json(path: Path) -> Any:
    """Returns the value in a JSON file. Raises ValueError if the file is missing or damaged."""
    return foreign.read_json(path, need="a checkpoint needs a JSON file")


def write_json(path: Path, value: Any) -> None:
    """Writes a value as readable JSON, with two spaces per level."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def differences(saved: Any, current: Any, *, where: str = "") -> list[str]:
    """Returns one line for each key at which two JSON values differ.

    `{"dim": 64}, {"dim": 128}` -> `["dim is 64 there and 128 here"]`.
    """
    if isinstance(saved, Mapping) and isinstance(current, Mapping):
        keys = dict.fromkeys([*saved, *current])
        pairs = [(f"{where}.{key}" if where else key, saved.get(key), current.get(key))
                 for key in keys]
    elif isinstance(saved, list) and isinstance(current, list) and len(saved) == len(current):
        pairs = [(f"{where}[{i}]", a, b)
                 for i, (a, b) in enumerate(zip(saved, current, strict=True))]
    elif isinstance(saved, list) and isinstance(current, list):
        return [f"{where} has {len(saved)} entries there and {len(current)} here"]
    else:
        return [] if saved == current else [
            f"{where} is {shown(saved)} there and {shown(current)} here"]
    return [line for name, a, b in pairs for line in differences(a, b, where=name)]
