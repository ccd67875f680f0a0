r"""Split patterns from files: compiled, or refused with a reason, and run with a time limit.

Hugging Face's files are written for another regex engine (Oniguruma, in the syntax of Ruby). Syntax
that means the same in both engines is used unchanged. Other syntax is translated or refused,
because it would cut text at other places without any error. A pattern can also take exponential
time, so each search has a limit of processor time.

Notebook 10. Source: https://github.com/kkos/oniguruma, doc/RE and doc/UNICODE_PROPERTIES.
"""

import re
from collections.abc import Callable
from typing import TypeVar

import regex

Found = TypeVar("Found")

_MAX_CHARS = 20_000
_SEARCH_SECONDS = 10.0
"""The limit of processor time for a short text."""
_CHARS_A_SECOND = 20_000
"""A text gets one more second per this many characters; known patterns are 100 times as fast."""

_ESCAPES = set("pPsSdDwrntvf")
# Parts of a pattern, the longest first, so that an escaped sign is never read as an operator.
_PART = re.compile(
    r"(?P<escape>\\(?s:.))|(?P<flag>\(\?i\))|(?P<group>\(\?(?:<[=!]|[^)\s]))"
    r"|(?P<set>\[\[:|\[:|&&)|(?P<counted>\{\d*,?\d*\}\+|\{\d+\}\?)|(?s:.)")
_GROUPS = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"}
# \w in the other engine: no joiners, and outside a class six more signs of Latin-1.
_WORD = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}"
_WORD_ALONE = f"[{_WORD}\xb9\xb2\xb3\xbc\xbd\xbe]"


def compile_pattern(pattern: str) -> regex.Pattern:
    """Returns the compiled pattern, with the meaning that it has in this engine.

    Raises ValueError for a pattern that does not compile or is very long.
    """
    return _compiled(pattern, pattern, flags=0)


def compile_foreign(pattern: str) -> regex.Pattern:
    """Returns the compiled pattern, with the meaning that it has in the other engine.

    Raises ValueError as `compile_pattern` does, and for syntax that cannot be translated.
    """
    return _compiled(pattern, _translated(pattern), flags=regex.MULTILINE)


def is_read_alike(pattern: str) -> bool:
    """Returns whether a pattern means the same in both engines.

    Raises ValueError for syntax that cannot be translated.
    """
    plain = re.sub(r"\\.|\[\^", "", pattern)
    return _translated(pattern) == pattern and not set("^$") & set(plain)


def _compiled(pattern: str, translated: str, *, flags: int) -> regex.Pattern:
    cure = "Correct the pattern in the tokenizer's file, or download the file again"
    if len(pattern) > _MAX_CHARS:
        raise ValueError(f"a split pattern may have at most {_MAX_CHARS:,} characters; got "
                         f"{len(pattern):,}. {cure}")
    try:
        return regex.compile(translated, flags)
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise ValueError("a split pattern must be a valid regular expression; got "
                         f"{pattern[:80]!r}, which does not compile ({str(error)[:120]}). "
                         f"{cure}") from None


def _translated(pattern: str) -> str:
    """Returns the pattern in this engine's syntax. Raises ValueError if that is not possible."""
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
    """Returns whether this part, outside of [ ], has another or no meaning in the other engine."""
    is_unknown_group = bool(found["group"]) and found[0] not in _GROUPS and not (
        found.string.startswith("(?i:", found.start()))
    return is_unknown_group or bool(found["counted"]) or bool(found["flag"] and found.start())


def _refuse(part: str, pattern: str) -> None:
    raise ValueError("a split pattern must mean the same here as in the library that the file was "
                     f"written for; {part} in {pattern[:80]!r} does not, and would cut text at "
                     "other places. Use a tokenizer whose pattern has only classes such as "
                     "\\p{L}, \\s and \\d, groups and repetitions")


def bounded(search: Callable[..., Found], text: str, *, pattern: str) -> Found:
    """Returns `search(text, timeout=...)`.

    Raises ValueError if it takes longer than 10 seconds plus one second per 20,000 characters.
    """
    seconds = _SEARCH_SECONDS + len(text) / _CHARS_A_SECOND
    try:
        return search(text, timeout=seconds)
    except MemoryError:
        raise ValueError("a split pattern must not run out of memory; got "
                         f"{pattern[:80]!r}, which does. It may contain itself without end, as "
                         "(?R) does. Correct it in the tokenizer's file") from None
    except TimeoutError:
        raise ValueError(f"a split pattern must finish {len(text):,} characters in {seconds:.1f} "
                         f"seconds of processor time; got {pattern[:80]!r}, which does not. It "
                         "may take time exponential in the length, as nested repetitions do. "
                         "Correct it in the tokenizer's file") from None
