"""Tokenizer -> tokenizer.json, in the form published with each kind of Llama.

Notebook 10. All Llamas. Format: https://huggingface.co/docs/tokenizers. The merges are as in
transformers, convert_slow_tokenizer.py.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

from llama_from_scratch.files import replacing_file
from llama_from_scratch.tokenizer.byte_bpe import BEGIN_AND_END, Tokenizer
from llama_from_scratch.tokenizer.hugging_face.json_tokenizer import AnyTokenizer, JsonTokenizer
from llama_from_scratch.tokenizer.hugging_face.vocabulary import (
    SCHEMES,
    SYMBOL_OF,
    check_merges,
    splits,
)
from llama_from_scratch.tokenizer.pieces import BLANK, Kind
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece


def write(path: str | os.PathLike, tokenizer: AnyTokenizer) -> None:
    """Writes a tokenizer.json in the form published with this kind of Llama, or as it was read.

    The `tokenizers` library then gives the same ids. Raises ValueError if that is impossible: if
    several merged pieces have equal scores, or if some of their characters are not pieces.
    """
    text = json.dumps(to_json(tokenizer), ensure_ascii=False, indent=2) + "\n"
    with replacing_file(path) as unfinished:
        unfinished.write_bytes(text.encode())


def to_json(tokenizer: AnyTokenizer) -> dict[str, Any]:
    """Returns the JSON value that `write` writes."""
    if isinstance(tokenizer, JsonTokenizer):
        return tokenizer.parts.file
    if isinstance(tokenizer, Tokenizer):
        return _parts_of_bytes(tokenizer)
    return _parts_of_pieces(tokenizer)


def _parts_of_bytes(tokenizer: Tokenizer) -> dict:
    ranks = tokenizer.ranks
    written = {token: "".join(map(SYMBOL_OF.__getitem__, token)) for token in ranks}
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        found = splits(token, ranks)
        merges += sorted(found, key=lambda split: (ranks[split[0]], ranks[split[1]]))
    split = {"type": "Split", "pattern": {"Regex": tokenizer.pattern}, "behavior": "Isolated",
             "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": True}
    bos, _ = BEGIN_AND_END
    template = [_template(bos, tokenizer.bos_id)] if tokenizer.adds_bos else []
    post_processors = [byte_level | {"add_prefix_space": True, "trim_offsets": False}, *template]
    return _file(
        tokenizer.special_ids,
        normalizer=None,
        pre_tokenizer={"type": "Sequence",
                       "pretokenizers": [split, byte_level | {"use_regex": False}]},
        post_processor={"type": "Sequence", "processors": post_processors},
        decoder=byte_level | {"add_prefix_space": True},
        model=_model({written[token]: rank for token, rank in ranks.items()},
                     [(written[left], written[right]) for left, right in merges], unknown=None,
                     has_bytes=False, takes_whole=True),
    )


def _parts_of_pieces(tokenizer: SentencePiece) -> dict:
    pieces = tokenizer.pieces
    if odd := [piece for piece in pieces if piece.kind == Kind.USER_DEFINED]:
        raise ValueError("a tokenizer.json of Llama 1 and 2 has no user-defined pieces; got "
                         f"{odd[0]}. Keep the tokenizer.model")
    ids = {piece.text: i for i, piece in enumerate(pieces)}
    score = {piece.text: piece.score for piece in pieces if piece.kind == Kind.NORMAL}
    found = [split for text in score for split in splits(text, score)]
    merges = sorted(found, key=lambda s: (-score["".join(s)], -len(s[0]), -len(s[1])))
    made = [text for text in score if len(text) > 1]
    if len({score[text] for text in made}) < len(made) - max(tokenizer.n_run - 2, 0):
        raise ValueError("the merges of a tokenizer.json have an order, so only runs of spaces may "
                         "have equal scores; other pieces have too. Keep the tokenizer.model")
    # Runs of spaces have one score and merge from the left, so the longest run merges first.
    order = sorted(made, key=lambda text: (-score[text], -len(text)))
    ranks = {text: rank for rank, text in enumerate(order)}
    check_merges(merges, ranks, cure="make each letter a piece, or keep the tokenizer.model")
    scheme = next((name for name, prefix in SCHEMES.items() if prefix == tokenizer.prefix), None)
    metaspace = {"type": "Metaspace", "replacement": BLANK, "prepend_scheme": scheme,
                 "split": False}
    prepend = {"type": "Prepend", "prepend": BLANK}
    blanks = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
    decoders = [
        {"type": "Replace", "pattern": {"String": BLANK}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if tokenizer.prefix != "never":
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return _file(
        tokenizer.special_ids,
        normalizer=None if scheme else {"type": "Sequence", "normalizers": [prepend, blanks]},
        pre_tokenizer=metaspace if scheme else None,
        post_processor=_template(tokenizer.bos, tokenizer.bos_id) if tokenizer.adds_bos else None,
        decoder={"type": "Sequence", "decoders": decoders},
        model=_model(ids, merges, unknown=pieces[tokenizer.unknown_id].text,
                     has_bytes=any(piece.kind == Kind.BYTE for piece in pieces), takes_whole=False),
    )


def _file(special_ids: Mapping[str, int], **parts: Any) -> dict:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
             "special": True}
    in_order = sorted(special_ids.items(), key=lambda item: item[1])
    added = [{"id": i, "content": name} | flags for name, i in in_order]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added} | parts


def _model(
    vocab: dict[str, int], merges: list[tuple[str, str]], *, unknown: str | None, has_bytes: bool,
    takes_whole: bool,
) -> dict:
    return {
        "type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": unknown is not None, "byte_fallback": has_bytes,
        "ignore_merges": takes_whole,
        "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])),
        "merges": [" ".join(pair) for pair in merges],
    }


def _template(bos: str, bos_id: int) -> dict:
    """Returns a step that puts `bos` before a text, and before each text of a pair."""
    parts = [part for n, name in enumerate("AB")
             for part in ({"SpecialToken": {"id": bos, "type_id": n}},
                          {"Sequence": {"id": name, "type_id": n}})]
    return {"type": "TemplateProcessing", "single": parts[:2], "pair": parts,
            "special_tokens": {bos: {"id": bos, "ids": [bos_id], "tokens": [bos]}}}
