"""Text -> pre-tokens: the pieces byte-pair encoding works in, so that no token crosses from one word into the next.

One regular expression cuts the text; its pieces joined together are the text again. It needs Unicode classes, hence the
`regex` module; lines that are pure ASCII take a twin of the pattern for Python's faster `re`, with equal pieces.
Characters are letters as the installed `regex` knows Unicode: at one that became a letter lately, as U+32E8C did in Unicode 17,
a library of another age may cut elsewhere and give other ids; at all others the ids are the same.

Notebook 10. Llama 3 and 4. Source: llama-models, models/llama3/tokenizer.py and models/llama4/tokenizer.py.
"""

import re
from collections.abc import Iterator, Mapping, Set
from typing import Literal

import regex

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"  # an English contraction's tail
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"  # a word, with the one blank or sign before it
    r"|\p{N}{1,3}"  # up to three digits
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"  # signs, with the line ends after them
    r"|\s*[\r\n]+"  # white space up to the last line end
    r"|\s+(?!\S)"  # white space, but for the last blank, which belongs to the next word
    r"|\s+"
)

_LETTERS_UPPER, _LETTERS_LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
LLAMA4_PATTERN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_LETTERS_UPPER}*{_LETTERS_LOWER}+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"  # a word keeps its tail
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_LETTERS_UPPER}+{_LETTERS_LOWER}*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"  # no capital after small
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)

# The same for ASCII text. Under re.ASCII `\s` is the six ASCII blanks, as `regex` has it. What starts a piece is asked for
# by its first character, the frequent first, and `++` gives nothing back: both for speed alone.
_LLAMA3_ASCII = re.compile(
    r"[A-Za-z]++"
    r"|\n(?= *+\S)"  # a line end, when only an indent follows
    r"| (?:[A-Za-z]++|[^\sA-Za-z0-9]++[\r\n]*+| *(?= \S))"  # " word", " +=" or an indent but for its last blank
    r"|'(?:[sStTmMdD]|[rRvV][eE]|[lL][lL])"
    r"|[^\r\nA-Za-z0-9][A-Za-z]++"
    r"|[^\sA-Za-z0-9]++[\r\n]*+"
    r"|[0-9]{1,3}+"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    re.ASCII,
)
_TAIL = r"(?:'(?:[sStTmMdD]|[rRvV][eE]|[lL][lL]))?+"
_LLAMA4_WORD = rf"(?:[a-z]++|[A-Z]++[a-z]*+){_TAIL}"
_LLAMA4_ASCII = re.compile(
    rf"{_LLAMA4_WORD}"
    r"|\n(?= *+\S)"
    rf"| (?:{_LLAMA4_WORD}|[^\sA-Za-z0-9]++[\r\n/]*+| *(?= \S))"
    rf"|[^\r\nA-Za-z0-9]{_LLAMA4_WORD}"
    r"|[^\sA-Za-z0-9]++[\r\n/]*+"
    r"|[0-9]{1,3}+"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    re.ASCII,
)
# No piece crosses a line end with an indent and a sign or letter after it, so ASCII lines can go apart. In Llama 4 a "/"
# at the begin of a line may belong to the signs before it.
_LINES = re.compile(r"[\x00-\x7f]*\n(?=[ \t]*\S)|(?s:.)+?(?:\n(?=[ \t]*\S)|\Z)")
_LINES_BUT_SLASH = re.compile(_LINES.pattern.replace(r"(?=[ \t]*\S)", r"(?=[ \t]+\S|[^\s/])"))
_TWINS = {LLAMA3_PATTERN: (_LLAMA3_ASCII, _LINES), LLAMA4_PATTERN: (_LLAMA4_ASCII, _LINES_BUT_SLASH)}
# Nor does a piece hold a blank that a sign or letter follows, but as its first character.
_WORD_BEGIN = re.compile(r" (?=\S)")

_SLICE_CHARS = 400_000
_RUN_CHARS = 25_000
_RUN = re.compile(r"\S++|\s++")  # in `re`, unlike in `regex`, `\s` is str.isspace()


class Splitter:
    """Cuts text by `pattern`: `Splitter(LLAMA3_PATTERN)("I'm 2000!")` -> `["I", "'m", " ", "200", "0", "!"]`."""

    def __init__(self, pattern: str):
        self.pattern = pattern
        self._unicode = regex.compile(pattern)
        if self._unicode.groups:
            raise ValueError(
                f"a split pattern has no capturing groups, got {self._unicode.groups} in {pattern!r}; write (?:...)"
            )
        self._ascii, self._lines = _TWINS.get(pattern, (None, None))

    def __call__(self, text: str) -> list[str]:
        """The pre-tokens of `text`, in order. Raises ValueError if the pattern leaves out a part of the text."""
        if self._ascii is None:
            pieces = self._unicode.findall(text)
            if (kept := sum(map(len, pieces))) != len(text):
                raise ValueError(
                    f"a split pattern matches every character, but {self.pattern!r} keeps {kept} of {len(text)}; "
                    r"end it with |[\s\S]"
                )
            return pieces
        if text.isascii():
            return self._ascii.findall(text)
        pieces = []
        for lines in self.lines(text):
            pieces += (self._ascii if lines.isascii() else self._unicode).findall(lines)
        return pieces

    def lines(self, text: str) -> list[str]:
        """`text` in stretches that split apart as they do together, ASCII or not; whole if the pattern is not a Llama's."""
        return [text] if self._lines is None or text.isascii() else self._lines.findall(text)

    def words(self, text: str) -> list[str]:
        """`text` in words that split apart as they do together; each but the first has lost the blank before it."""
        return [text] if self._lines is None else _WORD_BEGIN.split(text)


def cut_long(text: str) -> Iterator[str]:
    """`text` in stretches that are encoded apart: at most 400,000 characters, no run of one kind above 25,000.

    A run is consecutive white space, or consecutive non-space. 60,000 letters -> 25,000, 25,000 and 10,000.
    Source: llama-models, models/llama3/tokenizer.py, which bounds so what one call of its encoder must do.
    """
    for start in range(0, len(text), _SLICE_CHARS):
        part = text[start : start + _SLICE_CHARS]
        begin = 0
        # A run that is too long fills one of these blocks whole, and most text is done with at this glance.
        if any(_RUN.fullmatch(part, i, i + _RUN_CHARS // 2) for i in range(0, len(part), _RUN_CHARS // 2)):
            for run in _RUN.finditer(part):
                for end in range(run.start() + _RUN_CHARS, run.end(), _RUN_CHARS):
                    yield part[begin:end]
                    begin = end
        yield part[begin:]


def names_allowed(
    text: object,
    special_ids: Mapping[str, int],
    *,
    allowed_special: Literal["all"] | Set[str],
    disallowed_special: Literal["all"] | Set[str],
) -> Set[str]:
    """The special strings that become ids where `text` has them. Raises ValueError if it has a disallowed one."""
    if not isinstance(text, str):
        raise TypeError(f"encode takes str, got {type(text).__name__}; decode bytes to str first")
    allowed = _named(allowed_special, set(special_ids), special_ids)
    disallowed = _named(disallowed_special, special_ids.keys() - allowed, special_ids)
    if disallowed and (found := one_of(disallowed).search(text)):
        raise ValueError(
            f"text may not hold disallowed special tokens, got {found[0]!r} at character {found.start()}; take it "
            "out, or put it in allowed_special to make it one id"
        )
    return allowed


def _named(names: Literal["all"] | Set[str], all_names: Set[str], special_ids: Mapping[str, int]) -> Set[str]:
    if names == "all":
        return all_names
    if unknown := sorted(names - special_ids.keys()):
        raise ValueError(
            f"only special tokens of this vocabulary can be allowed or disallowed, got {unknown}; it has "
            f"{list(special_ids) or 'none'}"
        )
    return names


def one_of(names: Set[str]) -> re.Pattern:
    """A pattern with one group that finds any of `names`, the longest where several begin."""
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")


def without_surrogates(text: str) -> str:
    """`text` with surrogate pairs joined and lone surrogates, which UTF-8 has no bytes for, as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
