r"""Text -> pre-tokens: byte-pair encoding works inside each one, so no token crosses two words.

One regular expression cuts the text; joining the pieces gives the text again. The expression uses
Unicode classes, which need the `regex` module. Pure ASCII lines are cut by a faster twin of the
pattern that gives the same pieces (`ascii_split`).

Which characters are letters depends on the Unicode version of the installed `regex`. At a character
that became a letter recently, such as U+32E8C in Unicode 17, an older library may cut at another
place and give other ids. At all other characters the ids are the same.

Notebook 10. Llama 3 and 4. Source: llama-models, models/llama3/tokenizer.py and
models/llama4/tokenizer.py.
"""

import re
from collections.abc import Iterator

from llama_from_scratch.tokenizer.ascii_split import (
    LINES,
    LINES_BUT_SLASH,
    LLAMA3_ASCII,
    LLAMA4_ASCII,
    WORD_BEGIN,
)
from llama_from_scratch.tokenizer.file_pattern import bounded, compile_pattern

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"  # an English contraction's tail
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"  # a word, with one space or sign before it
    r"|\p{N}{1,3}"  # up to three digits
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"  # signs, with the line ends after them
    r"|\s*[\r\n]+"  # white space up to the last line end
    r"|\s+(?!\S)"  # white space without the last space, which belongs to the next word
    r"|\s+"
)

_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SIGN = r"[^\r\n\p{L}\p{N}]"
_TAIL = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA4_PATTERN = (
    rf"{_SIGN}?{_UPPER}*{_LOWER}+{_TAIL}?"  # a word keeps its tail
    rf"|{_SIGN}?{_UPPER}+{_LOWER}*{_TAIL}?"  # no capital after a small letter
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)

_TWINS = {LLAMA3_PATTERN: (LLAMA3_ASCII, LINES), LLAMA4_PATTERN: (LLAMA4_ASCII, LINES_BUT_SLASH)}

_SLICE_CHARS = 400_000
_RUN_CHARS = 25_000
_RUN = re.compile(r"\S++|\s++")  # in `re`, unlike in `regex`, `\s` is str.isspace()


class Splitter:
    """Cuts text by `pattern`.

    `Splitter(LLAMA3_PATTERN)("I'm 2000!")` -> `["I", "'m", " ", "200", "0", "!"]`. Raises
    ValueError for a pattern that cannot be used (`file_pattern`).
    """

    def __init__(self, pattern: str):
        self.pattern = pattern
        self._unicode = compile_pattern(pattern)
        if self._unicode.groups:
            raise ValueError("a split pattern must have no capturing groups; got "
                             f"{self._unicode.groups} in {pattern!r}. Write (?:...)")
        self._ascii, self._lines = _TWINS.get(pattern, (None, None))

    def __call__(self, text: str) -> list[str]:
        """Returns the pre-tokens of `text`, in order.

        Raises ValueError if the pattern does not match all of the text.
        """
        if self._ascii is None:
            pieces = bounded(self._unicode.findall, text, pattern=self.pattern)
            if (kept := sum(map(len, pieces))) != len(text):
                raise ValueError("a split pattern must match every character; "
                                 f"{self.pattern!r} matches {kept} "
                                 rf"of {len(text)}. End it with |[\s\S]")
            return pieces
        if text.isascii():
            return self._ascii.findall(text)
        pieces = []
        for lines in self.lines(text):
            pieces += (self._ascii if lines.isascii() else self._unicode).findall(lines)
        return pieces

    def lines(self, text: str) -> list[str]:
        """Returns `text` in parts that can be split separately; each is pure ASCII or is not.

        The text stays whole if the pattern is not one of Llama's.
        """
        return [text] if self._lines is None or text.isascii() else self._lines.findall(text)

    def words(self, text: str) -> list[str]:
        """Returns `text` in words that can be split separately.

        The space before each word except the first is left out.
        """
        return [text] if self._lines is None else WORD_BEGIN.split(text)


def cut_long(text: str) -> Iterator[str]:
    """Yields `text` in parts of at most 400,000 characters, with no run above 25,000.

    A run is consecutive white space, or consecutive other characters. 60,000 letters -> 25,000,
    25,000 and 10,000. The parts are encoded separately.

    Source: llama-models, models/llama3/tokenizer.py, where this limits the work of one call of the
    encoder.
    """
    for start in range(0, len(text), _SLICE_CHARS):
        part = text[start : start + _SLICE_CHARS]
        begin = 0
        # A run that is too long fills at least one of these blocks, which is rare.
        blocks = range(0, len(part), _RUN_CHARS // 2)
        if any(_RUN.fullmatch(part, i, i + _RUN_CHARS // 2) for i in blocks):
            for run in _RUN.finditer(part):
                for end in range(run.start() + _RUN_CHARS, run.end(), _RUN_CHARS):
                    yield part[begin:end]
                    begin = end
        yield part[begin:]


def without_surrogates(text: str) -> str:
    """Returns `text` with surrogate pairs joined; lone surrogates become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
