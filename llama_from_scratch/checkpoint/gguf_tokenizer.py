"""The tokenizer inside a GGUF file: lists of tokens, scores, kinds and merges.

"llama" is SentencePiece, described by scores and kinds. "gpt2" is byte-level BPE, described as in a
tokenizer.json by tokens in symbols for bytes and by merges; the pattern that cuts the text goes by
a name, for Llama 3 "llama-bpe". The list is as long as the embedding, so rows that pad it have
names too.

Notebook 18. Source: ggml, docs/gguf.md; llama.cpp, convert_hf_to_gguf.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llama_from_scratch.checkpoint import tokenizer_files
from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.tokenizer import hugging_face as tokenizer_json
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.tokenizer.pieces import Kind, Piece
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece
from llama_from_scratch.tokenizer.split import LLAMA3_PATTERN

_LLAMA_3_NAMES = ("llama-bpe", "llama3", "llama-v3")
_KEY = "tokenizer.ggml."


def read_tokenizer(
    facts: Mapping[str, Any], config: LlamaConfig | None, *, where: Path
) -> AnyTokenizer:
    """The tokenizer of a file.

    `config`: None where the file has no model. Raises ValueError if it has no tokenizer, a damaged
    one, or one that is of no Llama up to 3.3.
    """
    try:
        model = facts.get(_KEY + "model")
        if model not in ("llama", "gpt2"):
            raise ValueError(f"{_KEY}model must be \"llama\" (SentencePiece) or \"gpt2\" "
                             f"(byte-level BPE), got {model!r:.80}")
        tokens = _texts(facts, "tokens")
        kinds = [Kind(i) for i in _numbers(facts, "token_type", len(tokens), whole=True)]
        n = len(tokens)
        while n and kinds[n - 1] == Kind.UNUSED:
            n -= 1
        parse = _pieces if model == "llama" else _bytes_tokenizer
        tokenizer = parse(facts, tokens[:n], kinds[:n])
    except ValueError as error:
        raise ValueError(f"the tokenizer in {where} cannot be read: {error}. Take the tokenizer "
                         "from the checkpoint that the file was made from") from error
    if config is not None:
        tokenizer_files.refuse_other_vocabulary(tokenizer, config, where=str(where))
    return tokenizer


def facts_of(
    tokenizer: AnyTokenizer, config: LlamaConfig
) -> dict[str, tuple[str, Any]]:
    """The facts by which a file describes a tokenizer.

    Raises ValueError for one that the format has no words for.
    """
    if isinstance(tokenizer, tokenizer_json.JsonTokenizer):
        raise ValueError("a GGUF file has names for the steps of Llama's own tokenizers, and this "
                         "one has steps, ids or added tokens of another kind; write Hugging Face's "
                         "layout or our own")
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
    return {_KEY + key: fact for key, fact in facts.items()}


def _pieces(facts: Mapping[str, Any], tokens: list[str], kinds: list[Kind]) -> SentencePiece:
    scores = _numbers(facts, "scores", len(facts[_KEY + "tokens"]), whole=False)
    bos, eos = (facts.get(f"{_KEY}{name}_token_id", i) for name, i in (("bos", 1), ("eos", 2)))
    if wrong := [i for i in (bos, eos) if type(i) is not int or not 0 <= i < len(tokens)]:
        raise ValueError(f"the tokens that begin and end a text are among the {len(tokens)}, got "
                         f"{wrong[0]!r}")
    has_prefix = facts.get(_KEY + "add_space_prefix", True)
    if type(has_prefix) is not bool:
        raise ValueError(f"{_KEY}add_space_prefix is a truth value, got {has_prefix!r}")
    return SentencePiece(
        [Piece(*piece) for piece in zip(tokens, scores[: len(tokens)], kinds, strict=True)],
        prefix="always" if has_prefix else "never",
                         bos=tokens[bos], eos=tokens[eos])


def _bytes_tokenizer(facts: Mapping[str, Any], tokens: list[str], kinds: list[Kind]) -> Tokenizer:
    pre = facts.get(_KEY + "pre")
    if pre not in _LLAMA_3_NAMES:
        raise ValueError("the text of Llama 3 is cut by the pattern called \"llama-bpe\", got "
                         f"{pre!r:.80}")
    if len(set(tokens)) < len(tokens):
        raise ValueError("a token occurs twice")
    ids = {token: i for i, token in enumerate(tokens)}
    added = [{"id": i, "content": token, "special": True} for token, i in ids.items()
             if kinds[i] != Kind.NORMAL]
    split = {"type": "Split", "pattern": {"Regex": LLAMA3_PATTERN}, "behavior": "Isolated",
             "invert": False}
    return tokenizer_json.from_json({
        "model": {"type": "BPE",
                  "vocab": {token: i for token, i in ids.items() if kinds[i] == Kind.NORMAL},
                  "merges": _texts(facts, "merges"), "ignore_merges": True},
        "added_tokens": added,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            split, {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}]},
    })


def _facts_of_pieces(
    tokenizer: SentencePiece
) -> tuple[dict[str, tuple[str, Any]], list[str], list[int]]:
    if tokenizer.prefix not in ("always", "never"):
        raise ValueError("a GGUF file's SentencePiece puts a blank in front always or never, got "
                         f"prefix={tokenizer.prefix!r}; write Hugging Face's layout, or make the "
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
    if tokenizer.pattern != LLAMA3_PATTERN:
        raise ValueError("a GGUF file has a name for the pattern of Llama 3, and none for "
                         f"another; got {tokenizer.pattern!r:.80}. Write Hugging Face's layout")
    model = tokenizer_json.to_json(tokenizer)["model"]
    facts = {"model": ("str", "gpt2"), "pre": ("str", _LLAMA_3_NAMES[0]),
             "merges": ("[str]", model["merges"])}
    special = sorted(tokenizer.special_ids, key=tokenizer.special_ids.__getitem__)
    return (facts, [*model["vocab"], *special],
            [Kind.NORMAL] * len(model["vocab"]) + [Kind.CONTROL] * len(special))


def _texts(facts: Mapping[str, Any], key: str) -> list[str]:
    if not isinstance(values := facts.get(_KEY + key), list):
        raise ValueError(f"{_KEY}{key} is a list of texts, got {values!r:.80}")
    return values


def _numbers(facts: Mapping[str, Any], key: str, n: int, *, whole: bool) -> list:
    values = facts.get(_KEY + key)
    if (not isinstance(values, np.ndarray) or values.dtype.kind not in ("iu" if whole else "f")
        or len(values) != n):
        raise ValueError(f"{_KEY}{key} is a list of {n} {'whole ' if whole else ''}numbers, got "
                         f"{values!r:.80}")
    return values.tolist()
