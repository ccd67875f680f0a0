"""The tokenizer inside a GGUF file: lists of tokens, scores, kinds and merges.

"llama" is SentencePiece, described by scores and kinds. "gpt2" is byte-level BPE, described as in a
tokenizer.json: by tokens written in symbols for bytes, and by merges. The pattern that cuts the
text has a name, "llama-bpe" for Llama 3 and "llama4" for Llama 4. The list is as long as the
embedding, so rows that pad the embedding have names too.

Converters have changed over the years, and the files of all of them can be read. Before May 2024
they did not write the name of the pattern. For such a file llama.cpp uses a pattern of its own and
warns that quality suffers. Here a vocabulary with the tokens that begin and end a text in Llama 3
is cut by Llama 3's pattern, which gives the ids that the model was trained on. Some converters mark
the unknown piece of Llama 2 as a control token, or the ends of Llama 3 as ordinary tokens. The key
under which a file has an id decides then, as in llama.cpp.

Notebook 18. Source: ggml, docs/gguf.md; llama.cpp, convert_hf_to_gguf.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llama_from_scratch.checkpoint import tokenizer_files
from llama_from_scratch.checkpoint.gguf_prompting import ENDS, KEY, id_of
from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.tokenizer import hugging_face as tokenizer_json
from llama_from_scratch.tokenizer import released
from llama_from_scratch.tokenizer.byte_bpe import BEGIN_AND_END, Tokenizer
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.tokenizer.hugging_face.vocabulary import BYTE_OF
from llama_from_scratch.tokenizer.pieces import BLANK, Kind, Piece, is_byte_name
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece
from llama_from_scratch.tokenizer.split import LLAMA3_PATTERN, LLAMA4_PATTERN

_LLAMA_3_NAMES = ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral")
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
_GPT_2 = _BYTE_LEVEL | {"use_regex": True}
_LLAMA_4_NAME, _IN_LLAMA_4 = "llama4", "<|header_start|>"


def _split_by(pattern: str) -> list[dict]:
    return [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
             "invert": False}, _BYTE_LEVEL]


_STEPS: dict[str, list[dict]] = dict.fromkeys(_LLAMA_3_NAMES, _split_by(LLAMA3_PATTERN)) | {
    _LLAMA_4_NAME: _split_by(LLAMA4_PATTERN),
    "gpt-2": [_GPT_2], "smollm": [{"type": "Digits", "individual_digits": True}, _GPT_2]}
"""Name of a pattern in GGUF -> the steps of a tokenizer.json."""
_SPECIAL = frozenset((*released.LLAMA_3, *released.LLAMA_3_1, *released.LLAMA_4))


def read_tokenizer(
    facts: Mapping[str, Any], config: LlamaConfig | None, *, where: Path
) -> AnyTokenizer:
    """Returns the tokenizer of a file.

    `config`: None if the file has no model. Raises ValueError if the file has no tokenizer, a
    damaged tokenizer, or a tokenizer of no Llama.
    """
    try:
        model = facts.get(KEY + "model")
        if not isinstance(model, str) or model not in ("llama", "gpt2"):
            raise ValueError(f"{KEY}model must be \"llama\" (SentencePiece) or \"gpt2\" "
                             f"(byte-level BPE); got {model!r:.80}")
        for key in ("add_bos_token", "add_eos_token", "add_space_prefix"):
            if type(value := facts.get(KEY + key, True)) is not bool:
                raise ValueError(f"{KEY}{key} must be true or false; got {value!r:.80}")
        tokens = _texts(facts, "tokens")
        is_pieces = model == "llama"
        kinds = _kinds(facts, tokens, is_pieces=is_pieces)
        n = len(tokens)
        while n and kinds[n - 1] == Kind.UNUSED:
            n -= 1
        parse = _pieces if is_pieces else _bytes_tokenizer
        tokenizer = parse(facts, tokens[:n], kinds[:n])
    except ValueError as error:
        raise ValueError(f"the tokenizer in {where} cannot be read: {error}. Load the checkpoint "
                         "that the file was made from, or another conversion of it") from error
    # If the numbers are equal, each row has a token, even if it is only padding.
    if config is not None and len(tokens) != config.vocab_size:
        tokenizer_files.refuse_other_vocabulary(tokenizer, config, where=str(where))
    return tokenizer


def facts_of(
    tokenizer: AnyTokenizer, config: LlamaConfig
) -> dict[str, tuple[str, Any]]:
    """Returns the facts that describe a tokenizer.

    Raises ValueError for a tokenizer that the format cannot describe.
    """
    if isinstance(tokenizer, tokenizer_json.JsonTokenizer):
        raise ValueError("a GGUF file can describe only the steps of Llama's own tokenizers; this "
                         "tokenizer has steps, ids or added tokens of another kind. Write Hugging "
                         "Face's layout or our own")
    if isinstance(tokenizer, SentencePiece):
        facts, tokens, kinds = _facts_of_pieces(tokenizer)
    else:
        facts, tokens, kinds = _facts_of_bytes(tokenizer)
    padding = range(len(tokens), config.vocab_size)
    facts |= {"tokens": ("[str]", tokens + [f"[PAD{i}]" for i in padding]),
              "token_type": ("[i32]", [*kinds, *(Kind.UNUSED for _ in padding)]),
              "bos_token_id": ("u32", tokenizer.bos_id), "add_eos_token": ("bool", False)}
    if "scores" in facts:
        facts["scores"] = ("[f32]", [*facts["scores"][1], *(-1000.0 for _ in padding)])
    return {KEY + key: fact for key, fact in facts.items()}


def _kinds(facts: Mapping[str, Any], tokens: list[str], *, is_pieces: bool) -> list[Kind]:
    """Returns the kind of each token.

    Ids that the file uses to begin or end a text or a turn are control tokens, even if their kind
    in the file is another. Without a list of kinds, the kinds come from these ids and from names.
    """
    n = len(tokens)
    framing = [id_of(facts, key, n=n) for key in ("bos_token_id", *ENDS)]
    if KEY + "token_type" in facts:
        numbers = _numbers(facts, "token_type", n, whole=True)
        if wrong := sorted(set(numbers).difference(Kind)):
            raise ValueError(f"{KEY}token_type must have a number from 1 to 6 for each token; got "
                             f"{wrong[:4]}")
        kinds = [Kind(i) for i in numbers]
    else:
        kinds = [Kind.BYTE if is_pieces and is_byte_name(token) else Kind.NORMAL
                 for token in tokens]
        framing += [i for i in (1, 2) if is_pieces and i < n]
    for i in framing:
        if i is not None and kinds[i] != Kind.UNKNOWN:
            kinds[i] = Kind.CONTROL
    if not is_pieces:
        is_named = (Kind.NORMAL, Kind.USER_DEFINED)  # as some converters mark special tokens
        return [Kind.CONTROL if kind in is_named and token in _SPECIAL else kind
                for token, kind in zip(tokens, kinds, strict=True)]
    unknown = id_of(facts, "unknown_token_id", n=n, otherwise=0)
    if Kind.UNKNOWN not in kinds and unknown is not None and unknown < n:
        kinds[unknown] = Kind.UNKNOWN
    return kinds


def _pieces(facts: Mapping[str, Any], tokens: list[str], kinds: list[Kind]) -> SentencePiece:
    """Returns a tokenizer of the kind of Llama 1 and 2.

    Files write user-defined pieces with real spaces. Unused rows between other rows become control
    tokens, because no text is encoded as a control token, and it decodes to nothing.
    """
    scores = _numbers(facts, "scores", len(facts[KEY + "tokens"]), whole=False)
    n = len(tokens)
    bos, eos = (id_of(facts, f"{name}_token_id", n=n, otherwise=i)
                for name, i in (("bos", 1), ("eos", 2)))
    if wrong := [name for name, i in (("bos", bos), ("eos", eos)) if i is None or i >= n]:
        raise ValueError("there must be tokens that begin and end a text; "
                         f"{KEY}{wrong[0]}_token_id names none")
    texts = [token.replace(" ", BLANK) if kind == Kind.USER_DEFINED else token
             for token, kind in zip(tokens, kinds, strict=True)]
    kinds = [Kind.CONTROL if kind == Kind.UNUSED else kind for kind in kinds]
    prefix = "always" if facts.get(KEY + "add_space_prefix", True) else "never"
    return SentencePiece([Piece(*piece) for piece in zip(texts, scores[:n], kinds, strict=True)],
                         prefix=prefix, bos=texts[bos], eos=texts[eos])


def _bytes_tokenizer(
    facts: Mapping[str, Any], tokens: list[str], kinds: list[Kind]
) -> AnyTokenizer:
    """Returns the tokenizer of Llama 3 or 4, or one that merges bytes alike but cuts otherwise.

    All tokens that are not ordinary are added tokens, and they are special unless user-defined.
    """
    pre = facts.get(KEY + "pre", "default")
    is_unnamed = isinstance(pre, str) and pre == "default" and {*BEGIN_AND_END} <= {*tokens}
    if is_unnamed:
        pre = _LLAMA_4_NAME if _IN_LLAMA_4 in tokens else _LLAMA_3_NAMES[0]
    steps = _STEPS.get(pre if isinstance(pre, str) else "")
    if steps is None:
        raise ValueError(f"{KEY}pre must name the steps that cut the text, one of "
                         f"{', '.join(_STEPS)}; got {facts.get(KEY + 'pre')!r:.80}")
    if len(set(tokens)) < len(tokens):
        raise ValueError("each token must occur once; one occurs twice")
    n = len(tokens)
    is_ordinary = [kind == Kind.NORMAL or (kind == Kind.BYTE and token in BYTE_OF)
                   for token, kind in zip(tokens, kinds, strict=True)]
    bos, eos = (None if (i := id_of(facts, key, n=n)) is None else tokens[i]
                for key in ("bos_token_id", "eos_token_id"))
    return tokenizer_json.from_json({
        "model": {"type": "BPE",
                  "vocab": {token: i for i, token in enumerate(tokens) if is_ordinary[i]},
                  "merges": _texts(facts, "merges"), "ignore_merges": True},
        "added_tokens": [{"id": i, "content": token, "special": kinds[i] != Kind.USER_DEFINED}
                         for i, token in enumerate(tokens) if not is_ordinary[i]],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "decoder": _BYTE_LEVEL,
    }, bos=bos, eos=eos)


def _facts_of_pieces(
    tokenizer: SentencePiece
) -> tuple[dict[str, tuple[str, Any]], list[str], list[int]]:
    if tokenizer.prefix not in ("always", "never"):
        raise ValueError("a GGUF file's SentencePiece puts a space in front always or never; got "
                         f"prefix={tokenizer.prefix!r}. Write Hugging Face's layout, or make the "
                         "tokenizer with another prefix")
    facts = {"model": ("str", "llama"), "pre": ("str", "default"),
             "scores": ("[f32]", [piece.score for piece in tokenizer.pieces]),
             "unknown_token_id": ("u32", tokenizer.unknown_id),
             "add_space_prefix": ("bool", tokenizer.prefix == "always")}
    return facts, [piece.text
                   for piece in tokenizer.pieces], [piece.kind for piece in tokenizer.pieces]


def _facts_of_bytes(
    tokenizer: Tokenizer
) -> tuple[dict[str, tuple[str, Any]], list[str], list[int]]:
    names = {LLAMA3_PATTERN: _LLAMA_3_NAMES[0], LLAMA4_PATTERN: _LLAMA_4_NAME}
    if tokenizer.pattern not in names:
        raise ValueError("a GGUF file can name only the split patterns of Llama 3 and 4; got "
                         f"{tokenizer.pattern!r:.80}. Write Hugging Face's layout")
    model = tokenizer_json.to_json(tokenizer)["model"]
    facts = {"model": ("str", "gpt2"), "pre": ("str", names[tokenizer.pattern]),
             "merges": ("[str]", model["merges"])}
    special = sorted(tokenizer.special_ids, key=tokenizer.special_ids.__getitem__)
    return (facts, [*model["vocab"], *special],
            [Kind.NORMAL] * len(model["vocab"]) + [Kind.CONTROL] * len(special))


def _texts(facts: Mapping[str, Any], key: str) -> list[str]:
    if not isinstance(values := facts.get(KEY + key), list):
        raise ValueError(f"{KEY}{key} must be a list of texts; got {values!r:.80}")
    return values


def _numbers(facts: Mapping[str, Any], key: str, n: int, *, whole: bool) -> list:
    values = facts.get(KEY + key)
    if (not isinstance(values, np.ndarray) or values.dtype.kind not in ("iu" if whole else "iuf")
        or len(values) != n):
        raise ValueError(f"{KEY}{key} must be a list of {n} {'whole ' if whole else ''}numbers; "
                         f"got {values!r:.80}")
    return values.tolist()
