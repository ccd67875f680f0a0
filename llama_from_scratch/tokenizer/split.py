"""Text -> pre-tokens: the pieces byte-pair encoding works in, so that no token crosses from one word into the next.

One regular expression cuts the text; its pieces joined together are the text again. It needs Unicode classes, hence the
`regex` module; text that is pure ASCII takes a twin of the pattern for Python's faster `re`, with equal pieces.

Notebook 11. Llama 3. Source: llama-models, models/llama3/tokenizer.py.
"""

import re
from collections.abc import Iterator, Set

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

# Under re.ASCII `\s` is the six ASCII blanks and (?i:) folds A-Z only: on ASCII text what `regex` means by them.
_ASCII_TWIN = {
    LLAMA3_PATTERN: r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]{1,3}| ?[^\sA-Za-z0-9]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
}

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
        twin = _ASCII_TWIN.get(pattern)
        self._ascii = re.compile(twin, re.ASCII) if twin else None

    def __call__(self, text: str) -> list[str]:
        """The pre-tokens of `text`, in order. Raises ValueError if the pattern leaves out a part of the text."""
        if self._ascii and text.isascii():
            return self._ascii.findall(text)
        pieces = self._unicode.findall(text)
        if not self._ascii and sum(map(len, pieces)) != len(text):
            raise ValueError(
                f"a split pattern matches every character, but {self.pattern!r} keeps {sum(map(len, pieces))} of "
                rf"{len(text)}; end it with |[\s\S]"
            )
        return pieces


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
