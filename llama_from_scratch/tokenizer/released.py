"""The tokenizers that were released with Llama 1 to 4: file, pattern and special tokens of each.

From Llama 3 on, `tokenizer.model` holds only ranks. The special tokens are a block of ids after the
ranks: some have names, and all others are reserved and numbered in order. Two releases can have the
same file but different names.

Notebook 10. Sources: llama-models, models/llama3/tokenizer.py and models/llama4/tokenizer.py. The
names of Llama 3.1 and 3.2 are from their published tokenizer.json. Meta's own code calls two of the
reserved tokens "step_id" and "image".
"""

import os
from collections.abc import Mapping
from itertools import count
from types import MappingProxyType

from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece
from llama_from_scratch.tokenizer.split import LLAMA3_PATTERN, LLAMA4_PATTERN


def _block(
    length: int, named: Mapping[int, str], *, kind: str = "", first: int = 0
) -> tuple[str, ...]:
    """Returns the names of `length` special tokens.

    `named`: index in the block -> name. All other tokens are reserved; their names begin with
    `kind` and are numbered from `first`.
    """
    numbers = count(first)
    names = (named.get(i) or f"{kind}reserved_special_token_{next(numbers)}" for i in range(length))
    return tuple(f"<|{name}|>" for name in names)


_NAMED_3 = {
    0: "begin_of_text", 1: "end_of_text", 6: "start_header_id", 7: "end_header_id", 9: "eot_id",
}  # fmt: skip
_NAMED_3_1 = _NAMED_3 | {4: "finetune_right_pad_id", 8: "eom_id", 10: "python_tag"}
_TEXT_4 = [
    "begin_of_text", "end_of_text", "fim_prefix", "fim_middle", "fim_suffix", "header_start",
    "header_end", "eom", "eot", "step",
]  # fmt: skip
_PYTHON_4 = {0: "python_start", 1: "python_end", 2: "finetune_right_pad"}
_VISION_4 = {
    0: "image_start", 1: "image_end", 4: "tile_x_separator", 5: "tile_y_separator", 10: "image",
    12: "patch",
}  # fmt: skip
_REASONING_4 = {8: "reasoning_thinking_start", 9: "reasoning_thinking_end"}

LLAMA_3 = _block(256, _NAMED_3)
LLAMA_3_1 = _block(256, _NAMED_3_1)
"""Also the special tokens of Llama 3.2's text models and of Llama 3.3."""
LLAMA_3_2_VISION = _block(257, _NAMED_3_1 | {5: "step_id", 256: "image"})
LLAMA_4 = (
    *_block(16, dict(enumerate(_TEXT_4)), kind="text_post_train_"),
    *_block(64, _PYTHON_4, kind="text_post_train_", first=8),
    *_block(1054, _VISION_4, kind="vision_"),
    *_block(10, _REASONING_4, kind="reasoning_"),
    *_block(904, {}),
)
SPECIAL_TOKENS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "llama-3": LLAMA_3, "llama-3.1": LLAMA_3_1, "llama-3.2": LLAMA_3_1,
    "llama-3.2-vision": LLAMA_3_2_VISION, "llama-3.3": LLAMA_3_1, "llama-4": LLAMA_4,
})
"""The special tokens of each generation whose tokenizer.model does not hold them, in id order."""


N_RANKS: Mapping[str, int] = MappingProxyType(
    {name: 200_000 if name == "llama-4" else 128_000 for name in SPECIAL_TOKENS})
"""The number of ranks in the tokenizer.model of each generation."""


def pattern_of(generation: str) -> str:
    """Returns the pattern that cuts text before the ranks of a generation are applied."""
    return LLAMA4_PATTERN if generation == "llama-4" else LLAMA3_PATTERN


def llama_3(
    path: str | os.PathLike, *, special_tokens: tuple[str, ...] = LLAMA_3_1,
    n_ranks: int = N_RANKS["llama-3"]
) -> Tokenizer:
    """Returns the tokenizer of a rank file of Llama 3 to 3.3.

    `special_tokens`: give LLAMA_3 for the names of 3.0, or LLAMA_3_2_VISION for <|image|>.
    `n_ranks`: how many ranks the file must have; give it for a smaller file of your own.
    Raises ValueError if the file has another number of ranks.
    """
    return Tokenizer.load(path, special_tokens=special_tokens, pattern=LLAMA3_PATTERN,
                          n_ranks=n_ranks)


def llama_4(path: str | os.PathLike, *, n_ranks: int = N_RANKS["llama-4"]) -> Tokenizer:
    """Returns the tokenizer of a rank file of Llama 4, which must have `n_ranks` ranks."""
    return Tokenizer.load(path, special_tokens=LLAMA_4, pattern=LLAMA4_PATTERN, n_ranks=n_ranks)


def load(
    path: str | os.PathLike, generation: str, *, n_ranks: int | None = None
) -> Tokenizer | SentencePiece:
    """Returns the tokenizer of the tokenizer.model that was released with a generation.

    `generation`: a name such as "llama-2" or "llama-3.1". `n_ranks`: how many ranks a rank file
    must have, by default as many as the released file.

    Raises ValueError for an unknown generation, and for a file of another kind or with
    another number of ranks.
    """
    if generation in ("llama-1", "llama-2"):
        return SentencePiece.load(path)
    if generation not in SPECIAL_TOKENS:
        raise ValueError("a generation must be one of llama-1, llama-2, "
                         f"{', '.join(SPECIAL_TOKENS)}; got {generation!r}")
    n_ranks = N_RANKS[generation] if n_ranks is None else n_ranks
    if generation == "llama-4":
        return llama_4(path, n_ranks=n_ranks)
    return llama_3(path, special_tokens=SPECIAL_TOKENS[generation], n_ranks=n_ranks)
