"""A reader's text as tokens: read with the reader's own tokenizer, and written along an axis."""

from collections.abc import Sequence

from matplotlib.axis import Axis

from llama_from_scratch.lessons.figures.boxes import letters
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer

BOS = "<|begin_of_text|>"

MAX_TOKENS = 200
"""The longest text that a picture of every token still answers to at once."""

# Beyond this, names at a readable size would overlap: axes count instead.
MAX_NAMED_TOKENS = 32


def encode(
    model: Llama, tokenizer: Tokenizer, *, text: str, max_tokens: int = MAX_TOKENS
) -> list[int]:
    """The ids of a reader's text, after the token that begins a text if the vocabulary has one.

    Raises ValueError for an empty text, one of more than `max_tokens` or the model's context, or a
    foreign tokenizer.
    """
    if not text:
        raise ValueError("there is nothing to read: type a few words")
    limit = min(max_tokens, model.config.max_seq_len)
    # known without encoding, which would take long
    at_least = len(text) / max(map(len, tokenizer.ranks))
    ids = tokenizer.encode(text, bos=BOS in tokenizer.special_ids) if at_least <= limit else []
    if not ids or len(ids) > limit:
        raise ValueError(f"there is room for {limit} tokens; got {len(ids) or 'far more'} in "
                         f"{len(text):,} letters. Shorten the text")
    if max(ids) >= model.config.vocab_size:
        raise ValueError(f"the model knows the ids 0 to {model.config.vocab_size - 1}, "
                         f"and this text holds {max(ids)}. Is this the tokenizer that "
                         "the model was trained with?")
    return ids


def names_of(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    return [letters(tokenizer.decode_bytes([i])) for i in ids]


def label_axis(axis: Axis, names: Sequence[str], *, rotation: int = 0) -> None:
    """Tokens on an axis, or their numbers when there are too many to be read."""
    if len(names) <= MAX_NAMED_TOKENS:
        short = [name if len(name) < 12 else name[:10] + "…" for name in names]
        axis.set_ticks(range(len(names)), short, rotation=rotation)
        for label in axis.get_ticklabels():
            label.set_parse_math(False)
