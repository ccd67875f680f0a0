r"""The steps of a tokenizer.json before merging: how text is normalized, and how it is cut.

A step of an unknown kind is refused, because ids would be different without it. Known are the
normalizers Prepend, Replace, NFC, NFD, NFKC and NFKD, and the pre-tokenizers Split, Digits,
ByteLevel and Metaspace. Each can also be in a Sequence.

Notebook 10. Source: huggingface/tokenizers, tokenizers/src/normalizers and pre_tokenizers.
"""

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

from llama_from_scratch.tokenizer.file_pattern import bounded, compile_foreign
from llama_from_scratch.tokenizer.hugging_face.json_values import get, require
from llama_from_scratch.tokenizer.pieces import BLANK

Normalize = Callable[[str], str]
Cut = Callable[[str, bool], list[str]]
"""Cuts a part of a text into pre-tokens; the bool is True if the whole text begins with it."""

GPT2_PATTERN = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
_NORMAL_FORMS = ("NFC", "NFD", "NFKC", "NFKD")
_Found = tuple[str, bool]  # a part of the text, and whether it matched


def normalizer(step: Any) -> Normalize:
    """Returns a function that applies the normalizers of a file one after the other.

    Raises ValueError for an unknown one.
    """
    each = [_normalizer(one) for one in flat(step, "normalizers")]

    def normalize(text: str) -> str:
        for one in each:
            text = one(text)
        return text

    return normalize


def _normalizer(step: dict) -> Normalize:
    match step:
        case {"type": "Prepend", "prepend": str(front)}:
            return lambda text: front + text if text else text
        case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)} if old:
            return lambda text: text.replace(old, new)
        case {"type": "Replace", "pattern": {"Regex": str(old)}, "content": str(new)}:
            search = partial(compile_foreign(old).sub, lambda _: new)
            return lambda text: bounded(search, text, pattern=old)
        case {"type": str(form)} if form in _NORMAL_FORMS:
            return partial(unicodedata.normalize, form)
    raise ValueError("a tokenizer.json must normalize text by Prepend, Replace or "
                     f"{', '.join(_NORMAL_FORMS)}; got {step!r:.160}, which this version does not "
                     "support. Use a tokenizer without it")


def cutter(steps: list[dict]) -> Cut:
    """Returns a function that applies the pre-tokenizers of a file one after the other.

    A ByteLevel only cuts here; the caller writes bytes as symbols. Raises ValueError for an unknown
    step.
    """
    each = [_cutter(step) for step in steps]
    takes_out = any(step.get("behavior") == "Removed" for step in steps)
    if takes_out and any(step.get("prepend_scheme") == "first" for step in steps):
        raise ValueError("a Metaspace with prepend_scheme \"first\" needs steps that keep all "
                         f"text; got {steps!r:.200}. Use a tokenizer without a Split that removes "
                         "text")

    def cut(text: str, is_first: bool) -> list[str]:
        pieces = [text]
        for one in each:
            pieces = [part for i, piece in enumerate(pieces)
                      for part in one(piece, is_first and i == 0) if part]
        return pieces

    return cut


def _cutter(step: dict) -> Cut:
    match step:
        case {"type": "Split", "pattern": {"Regex": str(pattern)}}:
            return _split(step, partial(_matches, compile_foreign(pattern), pattern))
        case {"type": "Split", "pattern": {"String": str(text)}} if text:
            return _split(step, partial(_literals, text))
        case {"type": "Digits", "individual_digits": bool(is_each)}:
            digit = r"\p{N}"
            found = partial(_matches, compile_foreign(digit), digit)
            return lambda text, is_first: _joined(
                found(text), "Isolated" if is_each else "Contiguous")
        case {"type": "ByteLevel"}:
            return _byte_level(step)
        case {"type": "Metaspace", "replacement": "▁", "prepend_scheme": str(scheme)} if (
            scheme in ("always", "first", "never")):
            return partial(_metaspace, scheme, bool(step.get("split", True)))
    raise ValueError("a tokenizer.json must cut text by Split, Digits, ByteLevel or Metaspace; got "
                     f"{step!r:.200}, which this version does not support. Use another tokenizer")


def _split(step: dict, matches: Callable[[str], list[_Found]]) -> Cut:
    behavior, is_inverted = get(step, "behavior", str), bool(step.get("invert", False))
    if behavior not in _BEHAVIORS:
        raise ValueError(f"the behavior of a Split must be one of {', '.join(_BEHAVIORS)}; got "
                         f"{behavior!r:.80}. The file is damaged")

    def cut(text: str, is_first: bool) -> list[str]:
        found = [(part, is_match != is_inverted) for part, is_match in matches(text)]
        return _joined(found, behavior)

    return cut


def _matches(compiled: Any, pattern: str, text: str) -> list[_Found]:
    """Returns all of `text` in parts that match, or that are between matches."""
    def search(text: str, *, timeout: float) -> list[_Found]:
        found, done = [], 0
        for match in compiled.finditer(text, timeout=timeout):
            begin, end = match.span()
            found += [(text[done:begin], False)] if done < begin else []
            found.append((text[begin:end], True))
            done = end
        return found + ([(text[done:], False)] if done < len(text) else [])

    return bounded(search, text, pattern=pattern)


def _literals(wanted: str, text: str) -> list[_Found]:
    between = text.split(wanted)
    found = [(wanted, True)] * (2 * len(between) - 1)
    found[::2] = [(part, False) for part in between]
    return [(part, is_match) for part, is_match in found if part]


def _joined(found: Iterable[_Found], behavior: str) -> list[str]:
    return list(_BEHAVIORS[behavior](found))


def _merged_with_previous(found: Iterable[_Found]) -> list[str]:
    pieces: list[str] = []
    was_match = False
    for part, is_match in found:
        if is_match and not was_match and pieces:
            pieces[-1] += part
        else:
            pieces.append(part)
        was_match = is_match
    return pieces


def _merged_with_next(found: Iterable[_Found]) -> list[str]:
    pieces: list[str] = []
    was_match = False
    for part, is_match in reversed(list(found)):
        if is_match and not was_match and pieces:
            pieces[-1] = part + pieces[-1]
        else:
            pieces.append(part)
        was_match = is_match
    return pieces[::-1]


def _contiguous(found: Iterable[_Found]) -> Iterator[str]:
    for _, run in groupby(found, itemgetter(1)):
        yield "".join(part for part, _ in run)


_BEHAVIORS: dict[str, Callable[[Iterable[_Found]], Iterable[str]]] = {
    "Isolated": lambda found: (part for part, _ in found),
    "Removed": lambda found: (part for part, is_match in found if not is_match),
    "MergedWithPrevious": _merged_with_previous,
    "MergedWithNext": _merged_with_next,
    "Contiguous": _contiguous,
}


def _byte_level(step: dict) -> Cut:
    has_prefix = get(step, "add_prefix_space", bool)
    uses_pattern = step.get("use_regex", True)
    found = partial(_matches, compile_foreign(GPT2_PATTERN), GPT2_PATTERN)

    def cut(text: str, is_first: bool) -> list[str]:
        if has_prefix and not text.startswith(" "):
            text = " " + text
        return _joined(found(text), "Isolated") if uses_pattern else [text]

    return cut


def _metaspace(scheme: str, is_split: bool, text: str, is_first: bool) -> list[str]:
    text = text.replace(" ", BLANK)
    if not text.startswith(BLANK) and (scheme == "always" or (scheme == "first" and is_first)):
        text = BLANK + text
    return _merged_with_next(_literals(BLANK, text)) if is_split else [text]


def flat(step: Any, key: str) -> list[dict]:
    """Returns the steps of a Sequence, nested ones too, or the single step, or no steps."""
    if step is None:
        return []
    if require(step, dict, "a step").get("type") != "Sequence":
        return [step]
    return [one for each in get(step, key, list) for one in flat(each, key)]
