"""Mistakes that readers make in chapter 10."""

import inspect
import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import regex

from llama_from_scratch import bundled
from llama_from_scratch.lessons.mistakes import Listed
from llama_from_scratch.tokenizer.split import LLAMA3_PATTERN

listed = Listed()


# --- 1: digits one by one -------------------------------------------------------------------------

_DIGITS = r"\p{N}{1,3}"


def _cut(text: str, digits: str) -> list[str]:
    return regex.findall(LLAMA3_PATTERN.replace(_DIGITS, digits), text)


@listed("10.1", of="split_single_digits")
def nothing_changed(text: str) -> list[str]:
    """the pattern is unchanged: digits are cut in groups of three"""
    return regex.findall(LLAMA3_PATTERN, text)


@listed("10.1", of="split_single_digits")
def whole_numbers(text: str) -> list[str]:
    """a number is one piece, however many digits it has"""
    return _cut(text, r"\p{N}+")


@listed("10.1", of="split_single_digits")
def ascii_digits(text: str) -> list[str]:
    """only the digits 0 to 9 are pieces: other numbers, such as ½ and Ⅷ, are lost"""
    return _cut(text, r"[0-9]")


@listed("10.1", of="split_single_digits")
def digits_dropped(text: str) -> list[str]:
    """the alternative for digits is removed, so that they are lost"""
    return regex.findall(LLAMA3_PATTERN.replace(_DIGITS + "|", ""), text)


@listed("10.1", of="split_single_digits")
def space_with_digit(text: str) -> list[str]:
    """a digit takes the space before it: digits never do, only words and signs"""
    return _cut(text, r" ?\p{N}")


# --- 2: text that is certain ----------------------------------------------------------------------


def _held_back(pending: bytes, n_held: Sequence[int]) -> tuple[str, bytes] | None:
    for held in n_held:
        if held <= len(pending):
            whole = len(pending) - held
            try:
                return pending[:whole].decode("utf-8"), pending[whole:]
            except UnicodeDecodeError:
                pass
    return None


@listed("10.2", of="certain_text")
def nothing_held_back(pending: bytes) -> tuple[str, bytes]:
    """nothing is kept for later, so that an unfinished character becomes �"""
    return pending.decode("utf-8", errors="replace"), b""


@listed("10.2", of="certain_text")
def unfinished_ignored(pending: bytes) -> tuple[str, bytes]:
    """the bytes of an unfinished character are dropped instead of kept"""
    return pending.decode("utf-8", errors="ignore"), b""


@listed("10.2", of="certain_text")
def all_or_nothing(pending: bytes) -> tuple[str, bytes]:
    """all bytes are kept if any are unfinished: the text before them is certain"""
    return _held_back(pending, [0]) or ("", pending)


@listed("10.2", of="certain_text")
def one_byte_held_back(pending: bytes) -> tuple[str, bytes]:
    """at most one byte is held back: a character has up to four, so up to three can wait"""
    return _held_back(pending, [0, 1]) or (pending.decode("utf-8", errors="replace"), b"")


@listed("10.2", of="certain_text")
def never_given_up(pending: bytes) -> tuple[str, bytes]:
    """bytes that can never become text are kept for ever: after three bytes they become �"""
    return _held_back(pending, range(len(pending) + 1)) or ("", pending)


@listed("10.2", of="certain_text")
def last_byte_always_kept(pending: bytes) -> tuple[str, bytes]:
    """the last bytes are kept even if all bytes decode: first try without holding any back"""
    return _held_back(pending, [1, 2, 3]) or (pending.decode("utf-8", errors="replace"), b"")


# --- 3: merging with a heap -----------------------------------------------------------------------

Choose = Callable[[list[str]], int]


def _merge(parts: list[str], scores: dict[str, float], choose: Choose) -> list[str]:
    """Merges the pair that `choose` picks, until no pair is a piece."""
    while True:
        joined = [left + right for left, right in pairwise(parts)]
        if not any(pair in scores for pair in joined):
            return parts
        i = choose(joined)
        parts[i : i + 2] = [joined[i]]


def _prepared(text: str) -> list[str]:
    return list("▁" + text.replace(" ", "▁")) if text else []


def _best(joined: list[str], scores: dict[str, float]) -> int:
    return max(range(len(joined)), key=lambda i: scores.get(joined[i], -math.inf))


@listed("10.3", of="merge_fast")
def leftmost_first(text: str, scores: dict[str, float]) -> list[str]:
    """the leftmost pair merges first, whatever its score"""
    return _merge(_prepared(text), scores,
                  lambda joined: next(i for i, pair in enumerate(joined) if pair in scores))


@listed("10.3", of="merge_fast")
def lowest_first(text: str, scores: dict[str, float]) -> list[str]:
    """the lowest score merges first: `heappop` takes the smallest entry, so push `-score`"""
    return _merge(_prepared(text), scores, lambda joined: min(
        range(len(joined)), key=lambda i: scores.get(joined[i], math.inf)))


@listed("10.3", of="merge_fast")
def rightmost_of_equals(text: str, scores: dict[str, float]) -> list[str]:
    """among equal scores the rightmost pair merges first, instead of the leftmost"""
    return _merge(_prepared(text), scores, lambda joined: max(
        range(len(joined)), key=lambda i: (scores.get(joined[i], -math.inf), i)))


@listed("10.3", of="merge_fast")
def text_not_prepared(text: str, scores: dict[str, float]) -> list[str]:
    """the text is not prepared: one ▁ comes first, and each space becomes ▁"""
    return _merge(list(text), scores, lambda joined: _best(joined, scores))


@listed("10.3", of="merge_fast")
def longest_that_fits(text: str, scores: dict[str, float]) -> list[str]:
    """from left to right, the longest piece that fits is taken instead of merging by score"""
    rest, parts = "".join(_prepared(text)), []
    while rest:
        length = next((n for n in range(len(rest), 1, -1) if rest[:n] in scores), 1)
        parts.append(rest[:length])
        rest = rest[length:]
    return parts


@listed("10.3", of="merge_fast")
def new_neighbors_forgotten(text: str, scores: dict[str, float]) -> list[str]:
    """a merged part is not offered to its new neighbors, so that only pairs of characters merge"""
    parts = _prepared(text)
    pairs = sorted((-scores[a + b], i) for i, (a, b) in enumerate(pairwise(parts))
                   if a + b in scores)
    for _, i in pairs:
        if len(parts[i]) == len(parts[i + 1]) == 1:
            parts[i : i + 2] = [parts[i] + parts[i + 1], ""]
    return [part for part in parts if part]


# --- 4: a mixture of two sources ------------------------------------------------------------------

_N = 100_000


def _stories() -> str:
    return bundled.path("stories.txt").read_text(encoding="utf-8")[:400_000]


def _source() -> str:
    return inspect.getsource(inspect)


@listed("10.4", of="mixture")
def shares_exchanged(share: float) -> str:
    """the share is taken from the source: it is the share of stories"""
    n_stories = round(_N * (1 - share))
    return _stories()[:n_stories] + _source()[: _N - n_stories]


@listed("10.4", of="mixture")
def source_first(share: float) -> str:
    """the source comes before the stories"""
    n_stories = round(_N * share)
    return _source()[: _N - n_stories] + _stories()[:n_stories]


@listed("10.4", of="mixture")
def share_of_all_stories(share: float) -> str:
    """the share is taken of all of `learn`, not of 100,000 characters"""
    stories, source = _stories(), _source()
    return stories[: round(len(stories) * share)] + source[: round(len(source) * (1 - share))]


@listed("10.4", of="mixture")
def source_not_cut(share: float) -> str:
    """the source is not cut, so that the text is longer than 100,000 characters"""
    return _stories()[: round(_N * share)] + _source()


@listed("10.4", of="mixture")
def end_of_source(share: float) -> str:
    """the end of the source is taken instead of its beginning"""
    n_stories = round(_N * share)
    source = _source()
    return _stories()[:n_stories] + source[len(source) - (_N - n_stories) :]
