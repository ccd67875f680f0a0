r"""A split pattern that came from a file: compiled or refused in words, and run bounded.

Files of Hugging Face are written for another engine (Oniguruma, in the syntax of Ruby). What both
understand alike is taken as it is; the rest is translated or refused, because it would cut text
elsewhere in silence. A pattern can also take exponential time, so each search has a limit of
processor time.

Notebook 10. Source: https://github.com/kkos/oniguruma, doc/RE and doc/UNICODE_PROPERTIES.
"""

import re
from collections.abc import Callable
from typing import TypeVar

import regex

Found = TypeVar("Found")

_MAX_CHARS = 20_000
_SEARCH_SECONDS = 10.0
"""Processor time for one text, however short it is."""
_CHARS_A_SECOND = 20_000
"""What more a long text gets, a hundredth of the speed of any known pattern."""

_ESCAPES = set("pPsSdDwrntvf")
# Parts of a pattern, the longest first, so that an escaped sign is never taken for an operator.
_PART = re.compile(
    r"(?P<escape>\\(?s:.))|(?P<flag>\(\?i\))|(?P<group>\(\?(?:<[=!]|[^)\s]))"
    r"|(?P<set>\[\[:|\[:|&&)|(?P<counted>\{\d*,?\d*\}\+|\{\d+\}\?)|(?s:.)")
_GROUPS = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"}
# What the other engine counts as \w: no joiners, and outside a class six more signs of Latin-1.
_WORD = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}"
_WORD_ALONE = f"[{_WORD}\xb9\xb2\xb3\xbc\xbd\xbe]"


def compile_pattern(pattern: str) -> regex.Pattern:
    """Returns the compiled pattern, read as this engine reads it.

    Raises ValueError, in words, for one that does not compile or is very long.
    """
    return _compiled(pattern, pattern, flags=0)


def compile_foreign(pattern: str) -> regex.Pattern:
    """Returns the compiled pattern, read as the other engine reads it.

    Raises ValueError as `compile_pattern` does, and for syntax that has another meaning there.
    """
    return _compiled(pattern, _translated(pattern), flags=regex.MULTILINE)


def is_read_alike(pattern: str) -> bool:
    """Do both engines read the pattern in one way? Raises ValueError as `compile_foreign` does."""
    plain = re.sub(r"\\.|\[\^", "", pattern)
    return _translated(pattern) == pattern and not set("^$") & set(plain)


def _compiled(pattern: str, translated: str, *, flags: int) -> regex.Pattern:
    cure = "correct the pattern in the tokenizer's file, or download the file again"
    if len(pattern) > _MAX_CHARS:
        raise ValueError(f"a split pattern has at most {_MAX_CHARS:,} characters, got "
                         f"{len(pattern):,}; {cure}")
    try:
        return regex.compile(translated, flags)
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise ValueError(f"a split pattern is a regular expression, got {pattern[:80]!r}, which "
                         f"does not compile ({str(error)[:120]}); {cure}") from None


def _translated(pattern: str) -> str:
    """Returns the pattern in this engine's words. Raises ValueError for what has none."""
    parts, in_class = [], False
    for found in _PART.finditer(pattern):
        part = found[0]
        if found["set"] or (part == "[" and in_class):
            _refuse(pattern[found.start() : found.start() + 3], pattern)
        if found["escape"] and part[1].isalnum() and part[1] not in _ESCAPES:
            _refuse(part, pattern)
        if not in_class and _is_read_otherwise(found):
            _refuse(pattern[found.start() : found.start() + 4], pattern)
        if part == r"\w":
            part = _WORD if in_class else _WORD_ALONE
        if part in "[]":
            in_class = part == "["
        parts.append(part)
    return "".join(parts)


def _is_read_otherwise(found: re.Match) -> bool:
    """Does the other engine read this part outside of [ ] in another way, or not at all?"""
    is_unknown_group = bool(found["group"]) and found[0] not in _GROUPS and not (
        found.string.startswith("(?i:", found.start()))
    return is_unknown_group or bool(found["counted"]) or bool(found["flag"] and found.start())


def _refuse(part: str, pattern: str) -> None:
    raise ValueError(f"{part} in the split pattern {pattern[:80]!r} means one thing to the library "
                     "that the file was written for and another here, so it would cut text "
                     "elsewhere; take a tokenizer whose pattern has only classes such as \\p{L}, "
                     "\\s and \\d, groups and repetitions")


def bounded(search: Callable[..., Found], text: str, *, pattern: str) -> Found:
    """Returns what `search(text, timeout=...)` gives.

    Raises ValueError if it takes over 10 seconds, and a second more for 20,000 characters.
    """
    seconds = _SEARCH_SECONDS + len(text) / _CHARS_A_SECOND
    try:
        return search(text, timeout=seconds)
    except MemoryError:
        raise ValueError(f"a split pattern is done in little memory, and {pattern[:80]!r} is not; "
                         "it may ask for itself again without end, as (?R) does. Correct it in "
                         "the tokenizer's file") from None
    except TimeoutError:
        raise ValueError(f"a split pattern is done with {len(text):,} characters in {seconds:.1f} "
                         f"seconds of processor time, got {pattern[:80]!r}, which is not; it may "
                         "take time exponential in the length, as nested repetitions do. Correct "
                         "it in the tokenizer's file") from None
