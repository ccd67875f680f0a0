"""Reads a reader's text with the reader's tokenizer, and writes the tokens along an axis."""

from collections.abc import Sequence

from matplotlib.axis import Axis

from llama_from_scratch.lessons.figures.boxes import letters
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer

BOS = "<|begin_of_text|>"

MAX_TOKENS = 200
"""The longest text for which a picture of every token responds at once."""

# More names would overlap at a readable size, so axes show numbers instead.
MAX_NAMED_TOKENS = 32


def encode(
    model: Llama, tokenizer: Tokenizer, *, text: str, max_tokens: int = MAX_TOKENS
) -> list[int]:
    """Returns the ids of a reader's text, after <|begin_of_text|> if the vocabulary has it.

    Raises ValueError for an empty text, a text longer than `max_tokens` or the model's context, or
    the tokenizer of another model.
    """
    if not text:
        raise ValueError("the text is empty; type a few words")
    limit = min(max_tokens, model.config.max_seq_len)
    # a lower bound that needs no encoding, which would be slow for a long text
    at_least = len(text) / max(map(len, tokenizer.ranks))
    ids = tokenizer.encode(text, bos=BOS in tokenizer.special_ids) if at_least <= limit else []
    if not ids or len(ids) > limit:
        raise ValueError(f"there is room for {limit} tokens; got {len(ids) or 'far more'} in "
                         f"{len(text):,} letters. Shorten the text")
    if max(ids) >= model.config.vocab_size:
        raise ValueError(f"the model has the ids 0 to {model.config.vocab_size - 1}, but this "
                         f"text has {max(ids)}. Use the tokenizer that the model was trained with")
    return ids


def names_of(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    return [letters(tokenizer.decode_bytes([i])) for i in ids]


def label_axis(axis: Axis, names: Sequence[str], *, rotation: int = 0) -> None:
    """Writes tokens along an axis, or keeps its numbers if there are too many tokens."""
    if len(names) <= MAX_NAMED_TOKENS:
        short = [name if len(name) < 12 else name[:10] + "…" for name in names]
        axis.set_ticks(range(len(names)), short, rotation=rotation)
        for label in axis.get_ticklabels():
            label.set_parse_math(False)
