"""tokenizer.json, the form in which Hugging Face keeps every tokenizer, for those of Llama: read and written.

Its merges name pairs of tokens, where the files of Meta rank what a pair becomes. Both give the same ids: a token is only
ever made of the two parts in which its own letters stand before their last merge, whatever surrounds them. So a list of
merges is a ranking if it holds these two parts of each token, and in the order of the ranks; that is checked here.

Notebook 10. All Llamas. Format: https://huggingface.co/docs/tokenizers; the merges written are those of
transformers, convert_slow_tokenizer.py.
"""

import json
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from llama_from_scratch.files import replacing_file
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer, merge
from llama_from_scratch.tokenizer.long_words import Word
from llama_from_scratch.tokenizer.pieces import BLANK, Kind, Piece, is_byte_name
from llama_from_scratch.tokenizer.sentencepiece import Prefix, SentencePiece

_CURE = "give the tokenizer.json of a Llama"
_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_SYMBOL_OF = {value: chr(value) for value in _PRINTABLE} | {
    value: chr(256 + i) for i, value in enumerate(sorted(set(range(256)) - set(_PRINTABLE)))
}
_BYTE_OF = {symbol: value for value, symbol in _SYMBOL_OF.items()}
_SCHEMES: dict[str, Prefix] = {"always": "if missing", "first": "first if missing", "never": "never"}


def read_tokenizer(path: str | os.PathLike) -> Tokenizer | SentencePiece:
    """The tokenizer of a tokenizer.json: of Llama 3 and 4 if it works on bytes, else of Llama 1 and 2.

    It gives the ids that `tokenizers` gives, who takes special strings in a text always: `allowed_special="all"`. What
    such a file says of templates, padding and truncation is left to the caller. Raises ValueError if the file is damaged,
    or says anything that these two cannot do.
    """
    try:
        return from_json(json.loads(Path(path).read_bytes()))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as a tokenizer.json of a Llama: {error}") from None


def write(path: str | os.PathLike, tokenizer: Tokenizer | SentencePiece) -> None:
    """Writes a tokenizer.json as it is published with this kind of Llama; `tokenizers` then gives the same ids.

    Raises ValueError if that cannot be: pieces that merge as equals, or of characters that are no pieces.
    """
    text = json.dumps(to_json(tokenizer), ensure_ascii=False, indent=2) + "\n"
    with replacing_file(path) as unfinished:
        unfinished.write_bytes(text.encode())


def to_json(tokenizer: Tokenizer | SentencePiece) -> dict[str, Any]:
    """What `write` writes."""
    return _parts_of_bytes(tokenizer) if isinstance(tokenizer, Tokenizer) else _parts_of_pieces(tokenizer)


# --- reading ----------------------------------------------------------------------------------------------------------


def from_json(file: Any) -> Tokenizer | SentencePiece:
    """The tokenizer of a tokenizer.json that has been parsed, as `read_tokenizer` gives it."""
    model = _get(_require(file, dict, "the file"), "model", dict)
    vocab = _get(model, "vocab", dict)
    for key, wanted in {"type": ["BPE", None], "dropout": [None, 0], "continuing_subword_prefix": [None, ""],
                        "end_of_word_suffix": [None, ""]}.items():
        if model.get(key) not in wanted:
            raise ValueError(f"the model of a Llama has {key} {wanted[0]}, got {model[key]!r}; {_CURE}")
    if wrong := [(name, i) for name, i in vocab.items() if type(i) is not int]:
        raise ValueError(f"an id is a whole number, got {wrong[0][1]!r} for {wrong[0][0]!r}; the file is damaged")
    added = _added_tokens(file)
    ids = vocab | added
    if sorted(ids.values()) != list(range(len(ids))):
        raise ValueError(f"{len(ids)} tokens have the ids 0 to {len(ids) - 1}, each once; the file is damaged")
    merges = [_pair(entry) for entry in _get(model, "merges", list)]
    if unknown := [pair for pair in merges if not (pair[0] in vocab and pair[1] in vocab and pair[0] + pair[1] in vocab)]:
        raise ValueError(f"a merge makes a token of two tokens, got {unknown[0]}; the file is damaged")
    steps = _flat(file.get("pre_tokenizer"), "pretokenizers")
    if any(step.get("type") == "ByteLevel" for step in steps):
        return _bytes_tokenizer(file, steps, ids=ids, added=added, merges=merges)
    return _pieces_tokenizer(file, steps, ids=ids, added=added, merges=merges)


def _bytes_tokenizer(
    file: dict, steps: list[dict], *, ids: dict[str, int], added: dict[str, int], merges: list[tuple[str, str]]
) -> Tokenizer:
    base = {name: i for name, i in ids.items() if name not in added}
    if file.get("normalizer") is not None:
        raise ValueError(f"Llama 3 and 4 do not normalize text, got {file['normalizer']!r:.80}; {_CURE}")
    match steps:
        case [{"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
              {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}]:
            pass
        case _:
            raise ValueError(f"Llama 3 and 4 split by one pattern and then write bytes, got {steps!r:.200}; {_CURE}")
    if any(i < len(base) for i in added.values()):
        first = min(added, key=added.__getitem__)
        raise ValueError(f"special tokens follow the {len(base)} others, got {first!r} as {added[first]}; {_CURE}")
    try:
        ranks = {bytes(map(_BYTE_OF.__getitem__, name)): i for name, i in base.items()}
        pairs = [tuple(bytes(map(_BYTE_OF.__getitem__, part)) for part in pair) for pair in merges]
    except KeyError as unknown:
        raise ValueError(f"tokens are written in symbols for bytes, got {unknown.args[0]!r}; the file is damaged") from None
    tokenizer = Tokenizer(ranks, special_tokens=sorted(added, key=added.__getitem__), pattern=pattern)
    reached = _check_merges(pairs, ranks)
    others = [token for token in ranks if len(token) > 1 and token not in reached]
    if others and not file["model"].get("ignore_merges"):
        raise ValueError(f"ignore_merges is on where merges do not reach all tokens, such as {others[0]!r}; {_CURE}")
    return tokenizer


def _pieces_tokenizer(
    file: dict, steps: list[dict], *, ids: dict[str, int], added: dict[str, int], merges: list[tuple[str, str]]
) -> SentencePiece:
    model = file["model"]
    has_bytes = any(map(is_byte_name, ids))
    if has_bytes != bool(model.get("byte_fallback")) or not (has_bytes or model.get("fuse_unk")) or model.get("ignore_merges"):
        raise ValueError("Llama 1 and 2 have byte_fallback with byte pieces, fuse_unk without, and no ignore_merges, got "
                         f"{ {key: model.get(key) for key in ('byte_fallback', 'fuse_unk', 'ignore_merges')} }; {_CURE}")
    unknown = model.get("unk_token") or ("<unk>" if has_bytes else None)
    if unknown not in ids:
        raise ValueError(f"the vocabulary has the unknown token {unknown!r}, got unk_token {model.get('unk_token')!r}; {_CURE}")
    prefix = _prefix(_flat(file.get("normalizer"), "normalizers"), steps)

    kinds = {name: Kind.CONTROL for name in added} | {unknown: Kind.UNKNOWN}
    kinds = {name: kinds.get(name, Kind.BYTE if is_byte_name(name) else Kind.NORMAL) for name in ids}
    if odd := [pair for pair in merges if any(kinds[part] != Kind.NORMAL for part in (*pair, "".join(pair)))]:
        raise ValueError(f"only ordinary pieces merge, got {odd[0]}; {_CURE}")
    ranks: dict[str, int] = {}
    for left, right in merges:
        ranks.setdefault(left + right, len(ranks))
    normal = sorted((name for name in ids if kinds[name] == Kind.NORMAL), key=ids.__getitem__)
    for name in normal:
        ranks.setdefault(name, len(ranks))  # a letter; or a piece that nothing makes, which is checked now
    _check_merges(merges, ranks)
    scores = _scores(ranks, normal, first=ids[normal[0]] if normal else 0, ids=ids)
    names = sorted(ids, key=ids.__getitem__)
    return SentencePiece([Piece(name, scores.get(name, 0.0), kinds[name]) for name in names], prefix=prefix)


def _scores(ranks: dict[str, int], normal: list[str], *, first: int, ids: dict[str, int]) -> dict[str, float]:
    """A score for each ordinary piece, in the order of the ranks, and as in the files of Meta where the order allows it.

    There piece i has first - i, and runs of blanks, which merge last and longest first, have one score far below.
    """
    made = [piece for piece in sorted(ranks, key=ranks.__getitem__) if len(piece) > 1]
    runs = [piece for piece in made if BLANK * 2 in piece]
    if not runs or made[-len(runs) :] != [BLANK * n for n in range(len(runs) + 1, 1, -1)]:
        runs = []
    rest = made[: len(made) - len(runs)]
    is_in_order = all(ids[a] < ids[b] for a, b in pairwise(rest))
    scores = {piece: float(first - ids[piece] if is_in_order else -ranks[piece]) for piece in normal}
    return scores | dict.fromkeys([BLANK, *runs] if runs and BLANK in ids else [], -1e9)


def _prefix(normalizers: list[dict], steps: list[dict]) -> Prefix:
    match normalizers, steps:
        case [[{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}], []]:
            return "always"
        case [[{"type": "Replace", "pattern": {"String": " "}, "content": "▁"}], []]:
            return "never"
        case [[], [{"type": "Metaspace", "replacement": "▁", "prepend_scheme": str(scheme), "split": False}]]:
            if scheme in _SCHEMES:
                return _SCHEMES[scheme]
    raise ValueError("Llama 1 and 2 write blanks as ▁ in a normalizer (Prepend, Replace) or in a Metaspace that does not "
                     f"split, got {normalizers!r:.160} and {steps!r:.160}; {_CURE}")


def _check_merges(merges: Sequence[tuple[Word, Word]], ranks: Mapping[Word, int], *, cure: str = _CURE) -> set[Word]:
    """The tokens that merging reaches. Raises ValueError unless merging by these pairs is merging by these ranks."""
    place = {pair: i for i, pair in enumerate(merges)}
    reached, before = set(), -1
    for token in sorted(ranks, key=ranks.__getitem__):
        if len(token) == 1:
            continue
        halves = tuple(merge(token, ranks, n_parts=2))
        if len(halves) > 2:
            continue  # no text ever becomes this token by merging
        if halves not in place:
            raise ValueError(f"{token!r} is made of {halves}, which is not among the merges; {cure}")
        if place[halves] < before:
            raise ValueError(f"merges come in the order of what they make, got {halves} too early; {cure}")
        before = place[halves]
        reached.add(token)
    return reached


def _added_tokens(file: dict) -> dict[str, int]:
    added = {}
    for entry in _get(file, "added_tokens", list):
        entry = _require(entry, dict, "an added token")
        name, i = _get(entry, "content", str), _get(entry, "id", int)
        is_plain = entry.get("special") and not any(entry.get(key) for key in ("single_word", "lstrip", "rstrip"))
        if not name or name in added or not is_plain:
            raise ValueError(f"an added token of a Llama is special and matched as it is, got {entry!r:.200}; {_CURE}")
        added[name] = i
    return added


def _pair(entry: Any) -> tuple[str, str]:
    parts = entry.split(" ") if isinstance(entry, str) else entry
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
        raise ValueError(f"a merge is two tokens, got {entry!r:.80}; the file is damaged")
    return parts[0], parts[1]


def _flat(step: Any, key: str) -> list[dict]:
    """The steps of a Sequence, or the one step, or none."""
    if step is None:
        return []
    steps = _get(step, key, list) if _require(step, dict, "a step").get("type") == "Sequence" else [step]
    return [_require(each, dict, "a step") for each in steps]


def _get(values: dict, key: str, kind: type) -> Any:
    return _require(values.get(key), kind, f"{key!r}")


def _require(value: Any, kind: type, what: str) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{what} is a JSON {kind.__name__}, got {value!r:.80}; {_CURE}")
    return value


# --- writing ----------------------------------------------------------------------------------------------------------


def _parts_of_bytes(tokenizer: Tokenizer) -> dict:
    ranks = tokenizer.ranks
    written = {token: "".join(map(_SYMBOL_OF.__getitem__, token)) for token in ranks}
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        splits = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
        merges += sorted(splits, key=lambda split: (ranks[split[0]], ranks[split[1]]))
    split = {"type": "Split", "pattern": {"Regex": tokenizer.pattern}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    bos = "<|begin_of_text|>"
    template = [_template(bos, tokenizer.special_ids[bos])] if bos in tokenizer.special_ids else []
    post_processors = [byte_level | {"add_prefix_space": True, "trim_offsets": False}, *template]
    return _file(
        tokenizer.special_ids,
        normalizer=None,
        pre_tokenizer={"type": "Sequence", "pretokenizers": [split, byte_level | {"use_regex": False}]},
        post_processor={"type": "Sequence", "processors": post_processors},
        decoder=byte_level | {"add_prefix_space": True},
        model=_model(
            {written[token]: rank for token, rank in ranks.items()},
            [(written[left], written[right]) for left, right in merges],
            unknown=None,
            has_bytes=False,
            takes_whole=True,
        ),
    )


def _parts_of_pieces(tokenizer: SentencePiece) -> dict:
    pieces = tokenizer.pieces
    if any(piece.kind == Kind.USER_DEFINED for piece in pieces):
        raise ValueError("a tokenizer.json of Llama 1 and 2 has no user-defined pieces, got "
                         f"{next(piece for piece in pieces if piece.kind == Kind.USER_DEFINED)}; keep the tokenizer.model")
    ids = {piece.text: i for i, piece in enumerate(pieces)}
    score = {piece.text: piece.score for piece in pieces if piece.kind == Kind.NORMAL}
    splits = [(text[:i], text[i:]) for text in score for i in range(1, len(text)) if text[:i] in score and text[i:] in score]
    merges = sorted(splits, key=lambda split: (-score["".join(split)], -len(split[0]), -len(split[1])))
    made = [text for text in score if len(text) > 1]
    if len({score[text] for text in made}) < len(made) - max(tokenizer.n_run - 2, 0):
        raise ValueError("in a tokenizer.json one merge comes before another, and pieces that are no runs of blanks have equal "
                         "scores; keep the tokenizer.model")
    # Runs of blanks have one score and merge from the left, which is: the longest first.
    order = sorted(made, key=lambda text: (-score[text], -len(text)))
    ranks = {text: rank for rank, text in enumerate(order)}
    _check_merges(merges, ranks, cure="make each letter a piece, or keep the tokenizer.model")
    blanks = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
    scheme = next((scheme for scheme, prefix in _SCHEMES.items() if prefix == tokenizer.prefix), None)
    metaspace = {"type": "Metaspace", "replacement": BLANK, "prepend_scheme": scheme, "split": False}
    back = {"type": "Replace", "pattern": {"String": BLANK}, "content": " "}
    strip = [] if tokenizer.prefix == "never" else [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    has_bytes = any(piece.kind == Kind.BYTE for piece in pieces)
    unknown = pieces[tokenizer.unknown_id].text
    return _file(
        tokenizer.special_ids,
        normalizer=None if scheme else {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": BLANK}, blanks]},
        pre_tokenizer=metaspace if scheme else None,
        post_processor=_template(tokenizer.bos, tokenizer.bos_id) if tokenizer.bos in tokenizer.special_ids else None,
        decoder={"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
        model=_model(ids, merges, unknown=unknown, has_bytes=has_bytes, takes_whole=False),
    )


def _file(special_ids: Mapping[str, int], **parts: Any) -> dict:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": i, "content": name} | flags for name, i in sorted(special_ids.items(), key=lambda item: item[1])]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added} | parts


def _model(
    vocab: dict[str, int], merges: list[tuple[str, str]], *, unknown: str | None, has_bytes: bool, takes_whole: bool
) -> dict:
    return {
        "type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None, "end_of_word_suffix": None,
        "fuse_unk": unknown is not None, "byte_fallback": has_bytes, "ignore_merges": takes_whole,
        "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])), "merges": [" ".join(pair) for pair in merges],
    }  # fmt: skip


def _template(bos: str, bos_id: int) -> dict:
    """Puts `bos` before a text, and before each of a pair."""
    parts = [
        part
        for n, name in enumerate("AB")
        for part in ({"SpecialToken": {"id": bos, "type_id": n}}, {"Sequence": {"id": name, "type_id": n}})
    ]
    return {
        "type": "TemplateProcessing",
        "single": parts[:2],
        "pair": parts,
        "special_tokens": {bos: {"id": bos, "ids": [bos_id], "tokens": [bos]}},
    }
