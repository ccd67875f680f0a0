r"""Tokens that are found in a text before it is cut or merged, each by its own rules.

Other vocabularies may add tokens to the merged ones: special tokens such as <|im_start|>, and
ordinary ones such as <think>. A token may be found only as a separate word, or include the white
space around it. Where several tokens begin at the same place, the longest is taken.

Notebook 10. Source: huggingface/tokenizers, tokenizers/src/tokenizer/added_vocabulary.rs.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import regex

from llama_from_scratch.tokenizer.special_tokens import one_of

# \w as the `tokenizers` library understands it, which includes joiners.
_WORD = regex.compile(r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]")


class AddedToken(NamedTuple):
    """One added token and how it is found.

    `is_normalized`: it is searched for in the normalized text, not in the original text.
    `strips_left`, `strips_right`: the white space before or after it is part of it.
    `is_single_word`: it is found only where no letter, digit or underscore is next to it.
    """

    text: str
    id: int
    is_special: bool = True
    is_normalized: bool = False
    strips_left: bool = False
    strips_right: bool = False
    is_single_word: bool = False


class Part(NamedTuple):
    """A part of a text that begins at `begin`. `id`: of an added token, None for other text."""

    begin: int
    text: str
    id: int | None


class TokenFinder:
    """Cuts a text at added tokens.

    `tokens`: pairs of a text to search for and its token. Of two equal texts the later one counts.
    """

    def __init__(self, tokens: Sequence[tuple[str, AddedToken]]):
        self._token_of = {wanted: token for wanted, token in tokens if wanted}
        self._pattern = one_of(self._token_of.keys()) if self._token_of else None

    def parts(self, text: str) -> Iterator[Part]:
        """Yields the parts of `text` in order; only the part of a token can be empty."""
        done = 0
        for found in self._pattern.finditer(text) if self._pattern else ():
            token, (begin, end) = self._token_of[found[0]], found.span()
            if token.is_single_word and not _is_alone(text, begin, end):
                continue
            if token.strips_left:
                begin = max(done, len(text[:begin].rstrip(_SPACE)))
            if token.strips_right:
                end = len(text) - len(text[end:].lstrip(_SPACE))
            if done < begin:
                yield Part(done, text[done:begin], None)
            yield Part(begin, text[begin:end], token.id)
            done = end
        if done < len(text):
            yield Part(done, text[done:], None)


# Unicode's White_Space. str.isspace() accepts four more control characters.
_SPACE = "".join(regex.findall(r"\s", "".join(map(chr, range(0x3001)))))


def _is_alone(text: str, begin: int, end: int) -> bool:
    """Returns whether no character of a word is next to text[begin:end]."""
    before, after = text[begin - 1 : begin] if begin else "", text[end : end + 1]
    return not _WORD.match(before) and not _WORD.match(after)
