"""tokenizer.json -> tokenizer: one of Llama's own kinds if possible, or else one from its steps.

A file in the layout of Llama 3 or 4 becomes a Tokenizer. A file in the layout of Llama 1 or 2
becomes a SentencePiece. Any other file becomes a JsonTokenizer, or is refused if it contains
something that is not supported here.

Notebook 10. All Llamas. Format: https://huggingface.co/docs/tokenizers.
"""

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

from llama_from_scratch.foreign import parse_json, read_bytes
from llama_from_scratch.tokenizer.byte_bpe import BEGIN_AND_END, Tokenizer
from llama_from_scratch.tokenizer.file_pattern import is_read_alike
from llama_from_scratch.tokenizer.hugging_face.beside import Beside, read_beside, with_beside
from llama_from_scratch.tokenizer.hugging_face.json_tokenizer import (
    AnyTokenizer,
    JsonTokenizer,
    begins_with,
    decoding,
    framing,
)
from llama_from_scratch.tokenizer.hugging_face.json_values import require
from llama_from_scratch.tokenizer.hugging_face.parts import Parts, parts_of
from llama_from_scratch.tokenizer.hugging_face.steps import flat
from llama_from_scratch.tokenizer.hugging_face.vocabulary import BYTE_OF, SCHEMES, check_merges
from llama_from_scratch.tokenizer.pieces import BLANK, Kind, Piece, is_byte_name
from llama_from_scratch.tokenizer.prompting import USUAL_ENDS, Prompting
from llama_from_scratch.tokenizer.sentencepiece import Prefix, SentencePiece

_CURE = "give the tokenizer.json of a Llama"


def read_tokenizer(path: str | os.PathLike) -> AnyTokenizer:
    """Returns the tokenizer of a tokenizer.json, without the files next to it.

    With `allowed_special="all"` it gives the same ids as the `tokenizers` library, which always
    reads special strings as special tokens. Templates, padding and truncation in the file are left
    to the caller.
    Raises ValueError if the file is damaged, or if it contains something that is not supported.
    """
    data = read_bytes(path, need="a tokenizer needs a tokenizer.json")
    try:
        return from_json(parse_json(data))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a tokenizer.json of a Llama: {error}. "
                         "Download it again") from None


def read_folder(folder: str | os.PathLike, *, n_rows: int | None = None) -> AnyTokenizer:
    """Returns the tokenizer of the tokenizer.json in `folder` and of the files next to it.

    `n_rows`: how many rows the embedding has, if that is known. Raises ValueError as
    `read_tokenizer` does, and for a token that has no row.
    """
    path = Path(folder) / "tokenizer.json"
    data = read_bytes(path, need="a tokenizer needs a tokenizer.json")
    try:
        return of_folder(parse_json(data), read_beside(path.parent), n_rows=n_rows)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a tokenizer.json of a Llama: {error}. "
                         "Download it again") from None


def of_folder(file: Any, beside: Beside, *, n_rows: int | None) -> AnyTokenizer:
    """Returns the tokenizer of a parsed tokenizer.json and of the files next to it."""
    file = with_beside(require(file, dict, "the file"), beside, n_rows=n_rows)
    names = beside.names
    return from_json(file, bos=names.get("bos_token"), eos=names.get("eos_token"))


def from_json(file: Any, *, bos: str | None = None, eos: str | None = None) -> AnyTokenizer:
    """Returns the tokenizer of a parsed tokenizer.json, as `read_tokenizer` does.

    `bos`, `eos`: the tokens that begin and end a text, from the files next to it.
    """
    parts = parts_of(file)
    bos, eos = framing(parts, bos=bos, eos=eos)
    steps = flat(file.get("pre_tokenizer"), "pretokenizers")
    of_llama = (_bytes_tokenizer if any(step.get("type") == "ByteLevel" for step in steps)
                else _pieces_tokenizer)
    try:
        tokenizer = of_llama(parts, steps, bos=bos, eos=eos)
    except ValueError:  # not Llama's own layout, so JsonTokenizer follows its steps or refuses it
        return JsonTokenizer(parts, bos=bos, eos=eos)
    tokenizer.prompting = Prompting(
        adds_bos=begins_with(file.get("post_processor"), tokenizer.bos))
    return tokenizer


def plainly(tokenizer: AnyTokenizer) -> AnyTokenizer:
    """Returns the same vocabulary as a Tokenizer or a SentencePiece, where that is possible.

    Files of early Llama 2 search for special strings in the normalized text. Only this is lost: how
    an allowed special string inside a text is found. The formats of Meta, llama.cpp and llama2.c
    cannot describe it. Any other tokenizer is returned unchanged.
    """
    if not isinstance(tokenizer, JsonTokenizer):
        return tokenizer
    added = [entry | {"normalized": False} if entry.get("special") else entry
             for entry in tokenizer.parts.file["added_tokens"]]
    found = from_json(tokenizer.parts.file | {"added_tokens": added}, bos=tokenizer.bos,
                      eos=tokenizer.eos)
    if isinstance(found, JsonTokenizer):
        return tokenizer
    found.prompting = tokenizer.prompting
    return found


def _bytes_tokenizer(
    parts: Parts, steps: list[dict], *, bos: str | None, eos: str | None
) -> Tokenizer:
    """Returns the tokenizer of a file in Llama 3's or 4's layout. Raises ValueError for others."""
    begin, _ = BEGIN_AND_END
    _refuse_unusual(parts)
    match steps:
        case [{"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated",
               "invert": False},
              {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}]:
            pass
        case _:
            raise ValueError("Llama 3 and 4 split by one pattern and then write bytes as symbols")
    if (parts.file.get("normalizer") is not None or bos not in (None, begin)
        or eos not in (None, *USUAL_ENDS) or not is_read_alike(pattern)):
        raise ValueError("Llama 3 and 4 do not normalize text, and have their own names of tokens")
    if any(token.id < len(parts.base) for token in parts.added):
        raise ValueError("special tokens must have higher ids than all others")
    try:
        ranks = {_bytes_of(name): i for name, i in parts.base.items()}
        pairs = [(_bytes_of(left), _bytes_of(right)) for left, right in parts.merges]
    except KeyError as unknown:
        raise ValueError("tokens must be written in symbols for bytes; got "
                         f"{unknown.args[0]!r}. The file is damaged") from None
    if "decoder" in parts.file:
        decoding(parts, works_on_bytes=True)
    in_order = sorted(parts.added, key=lambda token: token.id)
    tokenizer = Tokenizer(ranks, special_tokens=[token.text for token in in_order],
                          pattern=pattern)
    reached = check_merges(pairs, ranks, cure=_CURE)
    others = [token for token in ranks if len(token) > 1 and token not in reached]
    if others and not parts.model.get("ignore_merges"):
        raise ValueError("ignore_merges must be on where merges do not reach all tokens")
    return tokenizer


def _bytes_of(name: str) -> bytes:
    return bytes(map(BYTE_OF.__getitem__, name))


def _pieces_tokenizer(
    parts: Parts, steps: list[dict], *, bos: str | None, eos: str | None
) -> SentencePiece:
    """Returns the tokenizer of a file in Llama 1's or 2's layout. Raises ValueError for others."""
    model, ids = parts.model, parts.ids
    has_bytes = any(map(is_byte_name, ids))
    settings = {key: model.get(key) for key in ("byte_fallback", "fuse_unk", "ignore_merges")}
    is_fused = has_bytes or settings["fuse_unk"]
    if has_bytes != bool(settings["byte_fallback"]) or not is_fused or settings["ignore_merges"]:
        raise ValueError("Llama 1 and 2 have byte_fallback with byte pieces, fuse_unk without, and "
                         f"no ignore_merges; got {settings}")
    unknown = model.get("unk_token") or ("<unk>" if has_bytes else None)
    if unknown not in ids:
        raise ValueError("the vocabulary must have the unknown token")
    _refuse_unusual(parts)
    prefix = _prefix(flat(parts.file.get("normalizer"), "normalizers"), steps)
    if prefix in ("always", "never") and any(token.is_normalized for token in parts.added):
        raise ValueError("special tokens must be found in the original text")
    if "decoder" in parts.file:
        _, strips = decoding(parts, works_on_bytes=False)
        if strips == (prefix == "never"):
            raise ValueError("decoding must remove the space that encoding puts in front")

    kinds = {token.text: Kind.CONTROL for token in parts.added} | {unknown: Kind.UNKNOWN}
    for name in ids.keys() - kinds.keys():
        kinds[name] = Kind.BYTE if is_byte_name(name) else Kind.NORMAL
    for pair in parts.merges:
        if any(kinds[part] != Kind.NORMAL for part in (*pair, "".join(pair))):
            raise ValueError("only ordinary pieces may merge")
    ranks: dict[str, int] = {}
    for left, right in parts.merges:
        ranks.setdefault(left + right, len(ranks))
    names = sorted(ids, key=ids.__getitem__)
    normal = [name for name in names if kinds[name] == Kind.NORMAL]
    for name in normal:
        # a character, or a piece that no merge makes, which is checked now
        ranks.setdefault(name, len(ranks))
    check_merges(parts.merges, ranks, cure=_CURE)
    scores = _scores(ranks, normal, first=ids[normal[0]] if normal else 0, ids=ids)
    pieces = [Piece(name, scores.get(name, 0.0), kinds[name]) for name in names]
    return SentencePiece(pieces, prefix=prefix, bos=bos or "<s>", eos=eos or "</s>")


def _refuse_unusual(parts: Parts) -> None:
    """Raises ValueError unless each added token is special and is found exactly as written."""
    flags = {token[2:] for token in parts.added}  # all except text and id
    if not flags <= {(True, False, False, False, False), (True, True, False, False, False)} or (
        len(flags) > 1):
        raise ValueError("a Llama's added tokens must be special, and found as they are written")


def _scores(
    ranks: dict[str, int], normal: list[str], *, first: int, ids: dict[str, int]
) -> dict[str, float]:
    """Returns a score for each ordinary piece, in the order of the ranks.

    If the order allows it, scores are as in Meta's files: piece i has first - i. Runs of spaces
    merge last, the longest first, and all have the same score far below.
    """
    made = [piece for piece in sorted(ranks, key=ranks.__getitem__) if len(piece) > 1]
    runs = [piece for piece in made if BLANK * 2 in piece]
    if not runs or made[-len(runs) :] != [BLANK * n for n in range(len(runs) + 1, 1, -1)]:
        runs = []
    rest = made[: len(made) - len(runs)]
    is_in_order = all(ids[a] < ids[b] for a, b in pairwise(rest))
    if is_in_order:
        scores = {piece: float(first - ids[piece]) for piece in normal}
    else:
        scores = {piece: float(-ranks[piece]) for piece in normal}
    return scores | dict.fromkeys([BLANK, *runs] if runs and BLANK in ids else [], -1e9)


def _prefix(normalizers: list[dict], steps: list[dict]) -> Prefix:
    match normalizers, steps:
        case [[{"type": "Prepend", "prepend": "▁"},
               {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}], []]:
            return "always"
        case [[{"type": "Replace", "pattern": {"String": " "}, "content": "▁"}], []]:
            return "never"
        case [[], [{"type": "Metaspace", "replacement": "▁", "prepend_scheme": str(scheme),
                    "split": False}]]:
            if scheme in SCHEMES:
                return SCHEMES[scheme]
    raise ValueError("Llama 1 and 2 write spaces as ▁ in a normalizer (Prepend, Replace) or in a "
                     f"Metaspace that does not split; got {normalizers!r:.160} and "
                     f"{steps!r:.160}; {_CURE}")
