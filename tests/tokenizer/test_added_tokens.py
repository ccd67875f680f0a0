r"""Added tokens are found as the tokenizers library finds them."""

import random
import unicodedata

import pytest
import tokenizers

from llama_from_scratch.tokenizer.added_tokens import AddedToken, Part, TokenFinder

TEXTS = ["<a>", "<ab>", "word", " x ", "é<a>", "<", "\n"]
BETWEEN = [" ", "  ", "\n", "\t", "a", "é", "_", "1", ".", "\x1f", "\u3000", "²", "\u200d", "😀"]


def theirs_of(tokens):
    """A tokenizers.Tokenizer whose ordinary text is one character a token, after the added ones."""
    model = tokenizers.models.WordLevel({"?": 100}, unk_token="?")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.add_tokens([
        tokenizers.AddedToken(t.text, lstrip=t.strips_left, rstrip=t.strips_right,
                              single_word=t.is_single_word, normalized=False, special=t.is_special)
        for t in tokens])
    return tokenizer, [tokenizer.token_to_id(t.text) for t in tokens]


@pytest.mark.parametrize("seed", range(12))
def test_tokens_of_any_flags_are_found_where_the_library_finds_them(seed):
    rng = random.Random(seed)
    tokens = [AddedToken(text, 0, strips_left=rng.random() < 0.4, strips_right=rng.random() < 0.4,
                         is_single_word=rng.random() < 0.4) for text in TEXTS[:-1]]
    theirs, ids = theirs_of(tokens)
    finder = TokenFinder([(t.text, t._replace(id=i)) for t, i in zip(tokens, ids, strict=True)])
    for _ in range(400):
        text = "".join(rng.choice(rng.choice([TEXTS, BETWEEN])) for _ in range(rng.randint(1, 9)))
        encoding = theirs.encode(text, add_special_tokens=False)
        wanted = [(span, i) for span, i in zip(encoding.offsets, encoding.ids, strict=True)]
        found = list(finder.parts(text))
        assert [((p.begin, p.begin + len(p.text)), 100 if p.id is None else p.id)
                for p in found] == wanted, text


def test_a_word_ends_where_the_library_ends_it_at_every_character():
    token = AddedToken("<w>", 0, is_single_word=True)
    theirs, [i] = theirs_of([token])
    finder = TokenFinder([(token.text, token._replace(id=i))])
    # Newer characters may be letters in one library's Unicode only.
    known = [chr(i) for i in range(1, 0x3000) if unicodedata.ucd_3_2_0.category(chr(i)) != "Cn"]
    for char in known:
        text = char + "<w>"
        is_alone = i in [part.id for part in finder.parts(text)]
        assert is_alone == (i in theirs.encode(text).ids), hex(ord(char))


def test_the_longest_of_several_tokens_is_found_and_the_text_between_is_kept():
    finder = TokenFinder([("<a", AddedToken("<a", 1)), ("<a>", AddedToken("<a>", 2))])
    assert list(finder.parts("x<a><a")) == [Part(0, "x", None), Part(1, "<a>", 2), Part(4, "<a", 1)]
    assert list(finder.parts("")) == []
    assert list(TokenFinder([]).parts("<a>")) == [Part(0, "<a>", None)]
