"""The config of each family's mini: the properties of the published checkpoints, in small sizes.

A mini is 128 channels wide and 3 layers deep, or 4 where layers differ. The smallest published
models of these families have 2,048 to 8,192 channels and 16 to 80 layers. Everything except the
sizes is the same. The mini of Llama 4 is a text model, with 4 experts in each layer.

Notebooks 18 and 19.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch

from llama_from_scratch import family
from llama_from_scratch.checkpoint.convert import FORMATS
from llama_from_scratch.config import LlamaConfig, nearest, record
from llama_from_scratch.family import VISION_GENERATION
from llama_from_scratch.tokenizer import chat_format, released
from llama_from_scratch.tokenizer.chat_format import ChatFormat

_DIM, _N_LAYERS, _N_HEADS = 128, 3, 4
_N_LAYERS_OF_ALL_KINDS = 4
"""Llama 4's fourth layer is the first without RoPE."""
_N_LEARNED = 1536
"""The number of ids in the tokenizer without the special tokens."""


@record
class Published:
    """Properties of a family's published checkpoints that are not in their configs.

    `special_tokens`: the ones after the ids of a byte-level tokenizer, or None for a SentencePiece
    tokenizer, which contains its own. `chat_format`: None if the models do not chat. `formats`: the
    ones that can hold the family and its tokenizer.
    """

    dtype: torch.dtype
    special_tokens: tuple[str, ...] | None
    chat_format: ChatFormat | None
    formats: tuple[str, ...]


def _published(
    name: str, *, dtype: torch.dtype = torch.bfloat16,
    formats: Sequence[str] = ("hugging-face", "meta", "gguf", "native"),
) -> Published:
    return Published(dtype=dtype, special_tokens=released.SPECIAL_TOKENS.get(name),
                     chat_format=chat_format.FORMATS.get(name), formats=tuple(formats))


PUBLISHED: Mapping[str, Published] = MappingProxyType({
    "llama-1": _published("llama-1", dtype=torch.float16),
    "llama-2": _published("llama-2", formats=FORMATS),  # llama2c fixes its theta and epsilon
    "llama-3": _published("llama-3"),
    "llama-3.1": _published("llama-3.1"),
    "llama-3.2": _published("llama-3.2"),
    "llama-3.3": _published("llama-3.3"),
    "llama-4": _published("llama-4"),
})  # fmt: skip
SEEING = _published(VISION_GENERATION, formats=("hugging-face", "meta", "native"))
"""The family that sees. Its mini is not made here but bundled (`mini_vision`)."""


def published(name: str) -> Published:
    """Returns the properties of any family with a mini. Raises ValueError for another name."""
    known = {**PUBLISHED, VISION_GENERATION: SEEING}
    if name not in known:
        raise ValueError(f"the families with a mini are {', '.join(known)}; got {name!r}; "
                         f"{nearest(name, known)}")
    return known[name]


def small_config(name: str) -> LlamaConfig:
    """Returns the config of a family's mini: its smallest model's config with other sizes.

    The feed-forward has the same width relative to the model, and each expert half of it. If the
    family's heads share key/value heads, two query heads share one here. Raises ValueError naming
    the nearest family.
    """
    refuse_unknown(name)
    first = family.first_of(name)
    n_special = len(PUBLISHED[name].special_tokens or ())
    n_kv_heads = _N_HEADS if first.n_kv_heads == first.n_heads else _N_HEADS // 2
    width = -(-_DIM * first.ffn_dim // first.dim // 32) * 32  # whole blocks of packed weights
    n_layers = _N_LAYERS if len(set(first.layers)) == 1 else _N_LAYERS_OF_ALL_KINDS
    return dataclasses.replace(
        first, dim=_DIM, n_heads=_N_HEADS, n_kv_heads=n_kv_heads,
        ffn_dim=width, vocab_size=_N_LEARNED + n_special,
        layers=tuple(family.small_spec(spec, width=width // 2) for spec in first.layers[:n_layers]))


def refuse_unknown(name: str) -> None:
    """Raises ValueError, naming the nearest family, for a family that has no row in `PUBLISHED`."""
    if name not in PUBLISHED:
        raise ValueError(f"the families whose mini is trained here are {', '.join(PUBLISHED)}; got "
                         f"{name!r}; {nearest(name, PUBLISHED)}")
