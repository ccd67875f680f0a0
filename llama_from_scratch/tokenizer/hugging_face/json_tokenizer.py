"""Any byte-pair tokenizer.json, followed step by step: text <-> ids.

Files in Llama's own layouts become a Tokenizer or a SentencePiece instead, which are faster and can
be written in every format. Derived vocabularies may have other special tokens, tokens that include
the spaces around them, other patterns, or ids in another order. Here the steps of their file are
followed: find added tokens, then normalize, cut and merge the text between them by the list of
pairs. The file itself is kept, so that it can be written exactly as it was read.

Notebook 10. All Llamas and their descendants. Format: https://huggingface.co/docs/tokenizers.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from llama_from_scratch.tokenizer.added_tokens import TokenFinder
from llama_from_scratch.tokenizer.batch import EncodesBatches
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer, join_bytes
from llama_from_scratch.tokenizer.hugging_face.json_values import get
from llama_from_scratch.tokenizer.hugging_face.pair_merging import merge_pairs
from llama_from_scratch.tokenizer.hugging_face.parts import Parts
from llama_from_scratch.tokenizer.hugging_face.steps import cutter, flat, normalizer
from llama_from_scratch.tokenizer.hugging_face.vocabulary import BYTE_OF, SYMBOL_OF
from llama_from_scratch.tokenizer.piece_words import PieceWords
from llama_from_scratch.tokenizer.pieces import BLANK, byte_name, is_byte_name
from llama_from_scratch.tokenizer.prompting import Prompted, Prompting
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece, decoded
from llama_from_scratch.tokenizer.special_tokens import SpecialNames, names_allowed
from llama_from_scratch.tokenizer.split import without_surrogates
from llama_from_scratch.tokenizer.word_cache import Memo

_REPLACE = {"type": "Replace", "pattern": {"String": BLANK}, "content": " "}
_STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


class JsonTokenizer(EncodesBatches, Prompted):
    """Text to ids and back, by the `parts` of a tokenizer.json.

    `bos`, `eos`: the names of the tokens that begin and end a text, None if there is none. Raises
    ValueError for an unknown step, and if no merge makes a token that two others could make.
    """

    def __init__(self, parts: Parts, *, bos: str | None, eos: str | None):
        self.parts, self.bos, self.eos = parts, bos, eos
        self.special_ids = {token.text: token.id for token in parts.added if token.is_special}
        self.prompting = Prompting(adds_bos=begins_with(parts.file.get("post_processor"), bos))
        self._normalize = normalizer(parts.file.get("normalizer"))
        steps = flat(parts.file.get("pre_tokenizer"), "pretokenizers")
        self._cut = cutter(steps)
        self.works_on_bytes = any(step.get("type") == "ByteLevel" for step in steps)
        _refuse_unmade(parts)
        self._model = (_ByteModel if self.works_on_bytes else _PieceModel)(parts)
        if not self.works_on_bytes and any(" " in piece for piece in self._pieces_of("a b c")):
            raise ValueError("a tokenizer.json without ByteLevel must write spaces as ▁, in its "
                             "normalizer or with a Metaspace; this one does not. Use another "
                             "tokenizer")
        # The `tokenizers` library decodes a token that it finds in normalized text to that text.
        shown = {self._normalize(token.text) if token.is_normalized else token.text: token.id
                 for token in parts.added}
        data_of, self._strips = decoding(parts._replace(ids=parts.base | shown),
                                         works_on_bytes=self.works_on_bytes)
        self._is_hidden = set() if self.works_on_bytes else set(self.special_ids.values())
        self._data_of = data_of | dict.fromkeys(self._is_hidden, b"")
        self._finders: dict[frozenset[str], tuple[TokenFinder, TokenFinder]] = {}

    @property
    def named_ids(self) -> Mapping[str, int]:
        """The ids of all added tokens, special or not."""
        return {token.text: token.id for token in self.parts.added}

    @property
    def vocab_size(self) -> int:
        """The number of ids, including added tokens."""
        return len(self._data_of)

    @property
    def bos_id(self) -> int:
        """The id of the token that begins a text. Raises ValueError if there is none."""
        return self._framing_id(self.bos, "bos_token")

    @property
    def eos_id(self) -> int:
        """The id of the token that ends a text. Raises ValueError if there is none."""
        return self._framing_id(self.eos, "eos_token")

    def _framing_id(self, name: str | None, key: str) -> int:
        if name is None or name not in self.parts.ids:
            raise ValueError(f"this needs the {key} of the tokenizer; its files name {name!r}. "
                             f"Name one of {list(self.special_ids)[:8]} in tokenizer_config.json")
        return self.parts.ids[name]

    def encode(
        self, text: str, *, bos: bool = False, eos: bool = False,
        allowed_special: SpecialNames = frozenset(), disallowed_special: SpecialNames = frozenset(),
    ) -> list[int]:
        """Returns the ids of `text`, with bos_id in front if `bos`, and eos_id at the end if `eos`.

        An added token that is not special is always found. A special string inside `text` is
        ordinary text. If it is in `allowed_special`, it becomes its id; "all" gives the same ids as
        the `tokenizers` library. Lone surrogates become U+FFFD. Raises ValueError for a string in
        `disallowed_special`, and for a character that the vocabulary has no token for.
        """
        allowed = names_allowed(text, self.special_ids, allowed_special=allowed_special,
                                disallowed_special=disallowed_special)
        raw, normalized = self._finders_for(frozenset(allowed))
        ids = [self.bos_id] if bos else []
        for outer in raw.parts(without_surrogates(text)):
            if outer.id is not None:
                ids.append(outer.id)
                continue
            for inner in normalized.parts(self._normalize(outer.text)):
                if inner.id is not None:
                    ids.append(inner.id)
                    continue
                is_first = outer.begin == 0 and inner.begin == 0
                for piece in self._cut(inner.text, is_first):
                    ids += self._model.encode(piece)
        return [*ids, self.eos_id] if eos else ids

    def _finders_for(self, allowed: frozenset[str]) -> tuple[TokenFinder, TokenFinder]:
        """Returns the finders of tokens in the original text and in the normalized text."""
        if allowed not in self._finders:
            tokens = [token for token in self.parts.added
                      if not token.is_special or token.text in allowed]
            raw = [(token.text, token) for token in tokens if not token.is_normalized]
            late = [(self._normalize(token.text), token) for token in tokens if token.is_normalized]
            self._finders.clear()  # callers use the same set repeatedly
            self._finders[allowed] = TokenFinder(raw), TokenFinder(late)
        return self._finders[allowed]

    def _pieces_of(self, text: str) -> list[str]:
        return self._cut(self._normalize(text), True)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Returns the bytes of `ids`. Decoding parts of `ids` and joining the bytes gives the same.

        For this a space in front stays. Raises ValueError for an id outside the vocabulary.
        """
        return join_bytes(self._data_of, ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids` from the file's decoder; bytes that are not UTF-8 are U+FFFD.

        If the file works on bytes, the text contains the names of special tokens. Otherwise they
        are left out.
        """
        if self.works_on_bytes:
            return self.decode_bytes(ids).decode("utf-8", errors="replace")
        runs: list[list[int]] = [[]]
        for i in ids:  # bytes before and after a special token must not become one character
            if i in self._is_hidden:
                runs.append([])
            else:
                runs[-1].append(i)
        text = "".join(decoded(self.decode_bytes(run)) for run in runs)
        return text[1:] if self._strips and text.startswith(" ") else text

    def __reduce__(self):
        make = partial(type(self), bos=self.bos, eos=self.eos)
        return make, (self.parts,), {"prompting": self.prompting}


AnyTokenizer = Tokenizer | SentencePiece | JsonTokenizer
"""The kinds of tokenizers that a checkpoint can have."""


class _ByteModel:
    """Merges the bytes of a pre-token, each written as a symbol."""

    def __init__(self, parts: Parts):
        self._ids, self._merges, self._file = parts.base, parts.ranked_merges(), parts.model
        self._takes_whole = bool(parts.model.get("ignore_merges"))
        self._ids_of = Memo(self._encode_new)

    def encode(self, text: str) -> Sequence[int]:
        return self._ids_of[text]

    def _encode_new(self, text: str) -> tuple[int, ...]:
        symbols = "".join(map(SYMBOL_OF.__getitem__, text.encode()))
        if self._takes_whole and symbols in self._ids:
            return (self._ids[symbols],)
        if lacking := [symbol for symbol in symbols if symbol not in self._ids]:
            raise ValueError("every byte of a text needs a token; this vocabulary has none for the "
                             f"byte {BYTE_OF[lacking[0]]:#04x} in {text[:40]!r}. Remove the text, "
                             "or train the vocabulary with all 256 bytes")
        return tuple(merge_pairs([self._ids[symbol] for symbol in symbols], self._merges))


class _PieceModel:
    """Merges the characters of a pre-token; characters without a token become bytes or unknown."""

    def __init__(self, parts: Parts):
        self._ids, self._merges = parts.base, parts.ranked_merges()
        model = parts.model
        self._takes_whole = bool(model.get("ignore_merges"))
        self._byte_ids = self._byte_ids_of(parts) if model.get("byte_fallback") else None
        if odd := [pair for pair in parts.merges if any(map(is_byte_name, pair))]:
            raise ValueError("bytes must not merge in a vocabulary of characters; got the merge "
                             f"{odd[0]}. The file is damaged")
        unknown = model.get("unk_token")
        self._unknown = None if unknown is None else parts.ids.get(unknown)
        if unknown is not None and self._unknown is None:
            raise ValueError("the unknown token must be in the vocabulary; got unk_token "
                             f"{unknown!r}. The file is damaged")
        self._is_fused = bool(model.get("fuse_unk"))
        texts = [text for text in parts.base if not is_byte_name(text) and text != unknown]
        self._words = PieceWords(texts, encode_known=self._encode_known,
                                 encode_unknown=self._encode_unknown)

    @staticmethod
    def _byte_ids_of(parts: Parts) -> list[int] | None:
        names = list(map(byte_name, range(256)))
        found = [name for name in names if name in parts.ids]
        if found and len(found) < 256:
            raise ValueError("byte_fallback must have all 256 byte tokens or none; got "
                             f"{len(found)}. The file is damaged")
        return [parts.ids[name] for name in names] if found else None

    def encode(self, text: str) -> Sequence[int]:
        if self._takes_whole and text in self._ids:
            return [self._ids[text]]
        ids = list(self._words.encode(text))
        if self._byte_ids is None and self._is_fused:
            ids = [i for last, i in pairwise([-1, *ids]) if not last == i == self._unknown]
        return ids

    def _encode_known(self, word: str) -> tuple[int, ...]:
        if all(char in self._ids for char in word):
            return tuple(merge_pairs([self._ids[char] for char in word], self._merges))
        ids: list[int] = []
        for char in word:  # a character may occur in pieces without being a piece itself
            ids += [self._ids[char]] if char in self._ids else self._encode_unknown(char)
        return tuple(merge_pairs(ids, self._merges))

    def _encode_unknown(self, text: str) -> Sequence[int]:
        if self._byte_ids is not None:
            return [self._byte_ids[value] for value in text.encode()]
        if self._unknown is None:
            raise ValueError("without an unknown token, every character of a text needs a token; "
                             f"this vocabulary has none for {text[0]!r}. Remove the character, or "
                             "use another vocabulary")
        return [self._unknown] * len(text)


def _refuse_unmade(parts: Parts) -> None:
    """Raises ValueError if a token could be made of two others, but no merge makes it.

    The list of merges has then lost a part.
    """
    names = {i: name for name, i in parts.base.items()}
    made = {new for _, new in parts.ranked_merges().values()}
    for i, name in names.items():
        if len(name) > 1 and i not in made and not is_byte_name(name):
            for k in range(1, len(name)):
                if name[:k] in parts.base and name[k:] in parts.base:
                    raise ValueError("a merge must make every token that two others make; got none "
                                     f"that makes {name!r} of {name[:k]!r} and {name[k:]!r}. The "
                                     "file may have lost a part: download it again")


def framing(parts: Parts, *, bos: str | None, eos: str | None) -> tuple[str | None, str | None]:
    """Returns the tokens that begin and end a text: as given, or otherwise from the file itself.

    From the file, these are the token that its template puts first, and a special token with the
    name that Llamas use for the end.
    """
    special = {token.text for token in parts.added if token.is_special}
    if bos is None:
        bos = next((name for name in special
                    if begins_with(parts.file.get("post_processor"), name)), None)
    if eos is None:
        eos = next((name for name in ("<|end_of_text|>", "</s>") if name in special), None)
    return bos, eos


def decoding(parts: Parts, *, works_on_bytes: bool) -> tuple[dict[int, bytes], bool]:
    """Returns the bytes of each id, and whether decoding removes one space in front of the text.

    Raises ValueError for an unknown decoder.
    """
    steps = flat(parts.file.get("decoder"), "decoders")
    strips, kinds = False, [step.get("type") for step in steps]
    if works_on_bytes and kinds == ["ByteLevel"]:
        return {i: _symbols_to_bytes(name) for name, i in parts.ids.items()}, False
    match steps:
        case [{"type": "Metaspace", "replacement": "▁"}] if not works_on_bytes:
            strips, has_bytes = steps[0].get("prepend_scheme", "always") != "never", False
        case [first, *more] if first == _REPLACE and not works_on_bytes:
            has_bytes = {"type": "ByteFallback"} in more
            strips = _STRIP in more
            known = [{"type": "ByteFallback"}] * has_bytes + [{"type": "Fuse"}] + [_STRIP] * strips
            if more != known:
                steps = []
        case _:
            steps = []
    if not steps:
        raise ValueError("a tokenizer.json must decode by ByteLevel, by Metaspace, or by Replace, "
                         f"ByteFallback, Fuse and Strip; got {parts.file.get('decoder')!r:.200}. "
                         "Use another tokenizer")
    data_of = {i: name.replace(BLANK, " ").encode() for name, i in parts.ids.items()}
    if has_bytes:
        data_of |= {parts.ids[name]: bytes([value]) for value in range(256)
                    if (name := byte_name(value)) in parts.ids}
    return data_of, strips


def _symbols_to_bytes(name: str) -> bytes:
    """Returns the bytes that a token's symbols mean; other characters are encoded as UTF-8."""
    known = [BYTE_OF.get(char) for char in name]
    return name.encode() if None in known else bytes(known)


def begins_with(step: Any, bos: str | None) -> bool:
    """Returns whether a post-processor puts the token `bos` before a text."""
    return any(
        step.get("type") == "TemplateProcessing"
        and (single := get(step, "single", list))[:1]
        and isinstance(single[0], dict)
        and single[0].get("SpecialToken", {}).get("id") == bos
        for step in flat(step, "processors"))


