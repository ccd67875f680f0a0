"""tokenizer.json -> tokenizer. What it asks for and a Llama does not have is refused.

Notebook 10. All Llamas. Format: https://huggingface.co/docs/tokenizers.
"""

import os
from itertools import pairwise
from typing import Any

from llama_from_scratch.foreign import parse_json, read_bytes
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.hugging_face.vocabulary import BYTE_OF, SCHEMES, check_merges
from llama_from_scratch.tokenizer.pieces import BLANK, Kind, Piece, is_byte_name
from llama_from_scratch.tokenizer.sentencepiece import Prefix, SentencePiece

_CURE = "give the tokenizer.json of a Llama"


def read_tokenizer(path: str | os.PathLike) -> Tokenizer | SentencePiece:
    """The tokenizer of a tokenizer.json: a Tokenizer if it works on bytes, else a SentencePiece.

    It gives the ids that `tokenizers` gives, which always takes special strings in a text as such:
    `allowed_special="all"`. Templates, padding and truncation in the file are left to the caller.
    Raises ValueError if the file is damaged, or if it asks for what these two cannot do.
    """
    data = read_bytes(path, need="a tokenizer needs a tokenizer.json")
    try:
        return from_json(parse_json(data))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a tokenizer.json of a Llama: {error}. "
                         "Download it again") from None


def from_json(file: Any) -> Tokenizer | SentencePiece:
    """The tokenizer of a tokenizer.json that has been parsed, as `read_tokenizer` gives it."""
    model = _get(_require(file, dict, "the file"), "model", dict)
    vocab = _get(model, "vocab", dict)
    for key, wanted in {
        "type": ["BPE", None], "dropout": [None, 0],
        "continuing_subword_prefix": [None, ""], "end_of_word_suffix": [None, ""],
    }.items():
        if model.get(key) not in wanted:
            raise ValueError(f"the model of a Llama has {key} {wanted[0]}, got {model[key]!r}; "
                             f"{_CURE}")
    if wrong := [(name, i) for name, i in vocab.items() if type(i) is not int]:
        name, i = wrong[0]
        raise ValueError(f"an id is a whole number, got {i!r} for {name!r}; the file is damaged")
    added = _added_tokens(file)
    ids = vocab | added
    if sorted(ids.values()) != list(range(len(ids))):
        raise ValueError(f"{len(ids)} tokens have the ids 0 to {len(ids) - 1}, each once; the file "
                         "is damaged")
    merges = [_pair(entry) for entry in _get(model, "merges", list)]
    if unknown := [pair for pair in merges if not {*pair, "".join(pair)} <= vocab.keys()]:
        raise ValueError(f"a merge makes a token of two tokens, got {unknown[0]}; the file is "
                         "damaged")
    steps = _flat(file.get("pre_tokenizer"), "pretokenizers")
    if any(step.get("type") == "ByteLevel" for step in steps):
        return _bytes_tokenizer(file, steps, ids=ids, added=added, merges=merges)
    return _pieces_tokenizer(file, steps, ids=ids, added=added, merges=merges)


def _bytes_tokenizer(
    file: dict, steps: list[dict], *, ids: dict[str, int], added: dict[str, int],
    merges: list[tuple[str, str]],
) -> Tokenizer:
    base = {name: i for name, i in ids.items() if name not in added}
    if file.get("normalizer") is not None:
        raise ValueError(f"Llama 3 and 4 do not normalize text, got {file['normalizer']!r:.80}; "
                         f"{_CURE}")
    match steps:
        case [{"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated",
               "invert": False},
              {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}]:
            pass
        case _:
            raise ValueError("Llama 3 and 4 split by one pattern and then write bytes, got "
                             f"{steps!r:.200}; {_CURE}")
    in_order = sorted(added, key=added.__getitem__)
    if any(i < len(base) for i in added.values()):
        first = in_order[0]
        raise ValueError(f"special tokens follow the {len(base)} others, got {first!r} as "
                         f"{added[first]}; {_CURE}")
    try:
        ranks = {bytes(map(BYTE_OF.__getitem__, name)): i for name, i in base.items()}
        pairs = [tuple(bytes(map(BYTE_OF.__getitem__, part)) for part in pair) for pair in merges]
    except KeyError as unknown:
        raise ValueError(f"tokens are written in symbols for bytes, got {unknown.args[0]!r}; the "
                         "file is damaged") from None
    tokenizer = Tokenizer(ranks, special_tokens=in_order, pattern=pattern)
    reached = check_merges(pairs, ranks, cure=_CURE)
    others = [token for token in ranks if len(token) > 1 and token not in reached]
    if others and not file["model"].get("ignore_merges"):
        raise ValueError("ignore_merges is on where merges do not reach all tokens, such as "
                         f"{others[0]!r}; {_CURE}")
    return tokenizer


def _pieces_tokenizer(
    file: dict, steps: list[dict], *, ids: dict[str, int], added: dict[str, int],
    merges: list[tuple[str, str]],
) -> SentencePiece:
    model = file["model"]
    has_bytes = any(map(is_byte_name, ids))
    settings = {key: model.get(key) for key in ("byte_fallback", "fuse_unk", "ignore_merges")}
    is_fused = has_bytes or settings["fuse_unk"]
    if has_bytes != bool(settings["byte_fallback"]) or not is_fused or settings["ignore_merges"]:
        raise ValueError("Llama 1 and 2 have byte_fallback with byte pieces, fuse_unk without, and "
                         f"no ignore_merges, got {settings}; {_CURE}")
    unknown = model.get("unk_token") or ("<unk>" if has_bytes else None)
    if unknown not in ids:
        raise ValueError(f"the vocabulary has the unknown token {unknown!r}, got unk_token "
                         f"{model.get('unk_token')!r}; {_CURE}")
    prefix = _prefix(_flat(file.get("normalizer"), "normalizers"), steps)

    kinds = {name: Kind.CONTROL for name in added} | {unknown: Kind.UNKNOWN}
    for name in ids.keys() - kinds.keys():
        kinds[name] = Kind.BYTE if is_byte_name(name) else Kind.NORMAL
    for pair in merges:
        if any(kinds[part] != Kind.NORMAL for part in (*pair, "".join(pair))):
            raise ValueError(f"only ordinary pieces merge, got {pair}; {_CURE}")
    ranks: dict[str, int] = {}
    for left, right in merges:
        ranks.setdefault(left + right, len(ranks))
    names = sorted(ids, key=ids.__getitem__)
    normal = [name for name in names if kinds[name] == Kind.NORMAL]
    for name in normal:
        # a letter; or a piece that nothing makes, which is checked now
        ranks.setdefault(name, len(ranks))
    check_merges(merges, ranks, cure=_CURE)
    scores = _scores(ranks, normal, first=ids[normal[0]] if normal else 0, ids=ids)
    pieces = [Piece(name, scores.get(name, 0.0), kinds[name]) for name in names]
    return SentencePiece(pieces, prefix=prefix)


def _scores(
    ranks: dict[str, int], normal: list[str], *, first: int, ids: dict[str, int]
) -> dict[str, float]:
    """A score for each ordinary piece, in the order of the ranks.

    Where the order allows it, scores are as in Meta's files: piece i has first - i, and runs of
    blanks, which merge last and longest first, have one score far below.
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
    raise ValueError("Llama 1 and 2 write blanks as ▁ in a normalizer (Prepend, Replace) or in a "
                     f"Metaspace that does not split, got {normalizers!r:.160} and {steps!r:.160}; "
                     f"{_CURE}")


def _added_tokens(file: dict) -> dict[str, int]:
    added = {}
    for entry in _get(file, "added_tokens", list):
        entry = _require(entry, dict, "an added token")
        name, i = _get(entry, "content", str), _get(entry, "id", int)
        is_matched_otherwise = any(entry.get(key) for key in ("single_word", "lstrip", "rstrip"))
        if not name or name in added or not entry.get("special") or is_matched_otherwise:
            raise ValueError("an added token of a Llama is special and matched as it is, got "
                             f"{entry!r:.200}; {_CURE}")
        added[name] = i
    return added


def _pair(entry: Any) -> tuple[str, str]:
    parts = entry.split(" ") if isinstance(entry, str) else entry
    is_list = isinstance(parts, list) and all(isinstance(part, str) for part in parts)
    if not is_list or len(parts) != 2:
        raise ValueError(f"a merge is two tokens, got {entry!r:.80}; the file is damaged")
    return parts[0], parts[1]


def _flat(step: Any, key: str) -> list[dict]:
    """The steps of a Sequence, or the one step, or none."""
    if step is None:
        return []
    is_sequence = _require(step, dict, "a step").get("type") == "Sequence"
    steps = _get(step, key, list) if is_sequence else [step]
    return [_require(each, dict, "a step") for each in steps]


def _get(values: dict, key: str, kind: type) -> Any:
    return _require(values.get(key), kind, f"{key!r}")


def _require(value: Any, kind: type, what: str) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{what} is a JSON {kind.__name__}, got {value!r:.80}; {_CURE}")
    return value
