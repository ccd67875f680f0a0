"""The files next to a tokenizer.json, and what they add to it.

These are tokenizer_config.json and, from older programs, special_tokens_map.json and
added_tokens.json. They name the tokens that begin and end a text or pad a batch. They also add
tokens, or flags of tokens, that the tokenizer.json lacks. Where they differ from it, they count, as
in transformers.

Notebook 18. Source: transformers, tokenization_utils_base.py and tokenization_utils_tokenizers.py.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llama_from_scratch.foreign import is_there, read_json

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token",
          "mask_token")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class Beside(NamedTuple):
    """The content of the files next to a tokenizer.json.

    `names`: of the tokens by role, such as "bos_token". `numbered`: tokens with the id that they
    must have, as entries of a tokenizer.json. `others`: tokens that get the next free id if they
    have no id yet.
    """

    names: dict[str, str]
    numbered: list[dict[str, Any]]
    others: list[dict[str, Any]]


def read_beside(folder: Path) -> Beside:
    """Returns the content of these files in `folder`, empty if there are none.

    Raises ValueError if one is damaged.
    """
    about = _read(folder / "tokenizer_config.json")
    numbered = [_entry(token, id=i) for i, token in _numbered(about, folder)]
    if "added_tokens_decoder" not in about:
        about |= _read(folder / "special_tokens_map.json")
    roles = {role: _entry(about[role]) for role in _NAMED if about.get(role) is not None}
    more = [token for key in ("additional_special_tokens", "extra_special_tokens")
            for token in _values(about.get(key))]
    others = [*roles.values(), *map(_entry, more)]
    if "added_tokens_decoder" not in about:
        special = {entry["content"] for entry in others}
        old = _read(folder / "added_tokens.json").items()
        numbered = [_entry(name, id=i) if name in special
                    else _entry(name, id=i) | {"special": False, "normalized": True}
                    for name, i in sorted(old, key=lambda item: str(item[1]).zfill(20))]
    names = {role: entry["content"] for role, entry in roles.items()}
    return Beside(names=names, numbered=numbered, others=others)


def with_beside(file: dict[str, Any], beside: Beside, *, n_rows: int | None) -> dict[str, Any]:
    """Returns a parsed tokenizer.json with the changes by the files next to it.

    `n_rows`: how many rows the embedding has, if that is known. A padding token without a row is
    left out, because no text needs it. Raises ValueError for any other token without a row, and for
    a token that has different ids in the files.
    """
    entries = file.get("added_tokens")
    vocab = file["model"].get("vocab") if isinstance(file.get("model"), dict) else None
    if not isinstance(entries, list) or not isinstance(vocab, dict):
        return file  # damaged, which its reader reports
    if not all(isinstance(entry, dict) and isinstance(entry.get("content"), str)
               for entry in entries):
        return file  # damaged, which its reader reports
    added = {entry["content"]: entry for entry in entries}
    ids = vocab | {name: entry.get("id") for name, entry in added.items()}
    for entry in beside.numbered:
        if (known := ids.setdefault(entry["content"], entry["id"])) != entry["id"]:
            raise ValueError(f"a token must have one id; got {known!r} for {entry['content']!r} in "
                             f"tokenizer.json and {entry['id']} in the files next to it. Download "
                             "all of them again")
        added[entry["content"]] = entry
    for entry in beside.others:
        i = ids.setdefault(entry["content"], len(ids))
        added.setdefault(entry["content"], entry | {"id": i})
    pad = beside.names.get("pad_token")
    if n_rows is not None and type(last := ids.get(pad)) is int and last >= n_rows:
        added.pop(pad, None)
        ids.pop(pad)
    too_high = [(name, i) for name, i in ids.items() if type(i) is int and i >= (n_rows or i + 1)]
    if too_high:
        name, i = min(too_high, key=lambda item: item[1])
        raise ValueError(f"every token needs a row in the embedding; got {name!r} with the id {i} "
                         f"and {n_rows} rows, {len(too_high)} such tokens in all. Take the "
                         "tokenizer and the weights from the same checkpoint, or enlarge the "
                         "embedding with the program that added the tokens")
    kept = [entry for name, entry in added.items() if name in ids]
    return file | {"added_tokens": sorted(kept, key=lambda entry: str(entry.get("id")).zfill(20))}


def _read(path: Path) -> dict[str, Any]:
    if not is_there(path):
        return {}
    value = read_json(path, need="a tokenizer needs a JSON file")
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object; got {value!r:.80}. Download it again")
    return value


def _numbered(about: dict[str, Any], folder: Path) -> Iterator[tuple[int, Any]]:
    tokens = about.get("added_tokens_decoder", {})
    if not isinstance(tokens, dict) or not all(key.isdecimal() and len(key) < 12 for key in tokens):
        raise ValueError("added_tokens_decoder must have a token for each id; got "
                         f"{tokens!r:.160} in {folder / 'tokenizer_config.json'}. Download it "
                         "again")
    return ((int(key), tokens[key]) for key in sorted(tokens, key=int))


def _values(tokens: Any) -> Iterable[Any]:
    """Returns the tokens of a list, or of an object whose keys are roles."""
    if tokens is None:
        return ()
    values = list(tokens.values()) if isinstance(tokens, dict) else tokens
    if not isinstance(values, list):
        raise ValueError("additional special tokens must be a list; got "
                         f"{tokens!r:.160} in tokenizer_config.json. Download it again")
    return values


def _entry(token: Any, *, id: Any = None) -> dict[str, Any]:
    """Returns an entry of a tokenizer.json for a text, or for an object with flags."""
    known = {"content": token, "special": True} if isinstance(token, str) else token
    if not isinstance(known, dict) or not isinstance(known.get("content"), str):
        raise ValueError("a special token must be a text, or an object whose \"content\" is a "
                         f"text; got {token!r:.160} in the files next to tokenizer.json. Download "
                         "them again")
    if id is not None and type(id) is not int:
        raise ValueError(f"an id must be a whole number; got {id!r:.80} for {known['content']!r} "
                         "in added_tokens.json. Download it again")
    flags = {flag: known.get(flag, flag == "special") for flag in _FLAGS}
    return {"id": id, "content": known["content"]} | flags
