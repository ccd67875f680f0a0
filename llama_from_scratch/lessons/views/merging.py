"""Shows how the bytes of a text become tokens, merge by merge.

Used by the chapter on the tokenizer (10).
"""

from collections.abc import Sequence

from matplotlib.figure import Figure

from llama_from_scratch.lessons.check.words import counted
from llama_from_scratch.lessons.figures.boxes import letters, tokens
from llama_from_scratch.lessons.views.text import MAX_TOKENS
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore, slider
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.merges import merge_word


def merges(tokenizer: Tokenizer, *, text: str) -> Explorer:
    """Returns a widget that merges a text, with one step for each merge that it uses.

    The merges are in the order in which the tokenizer learned them.
    """
    def used(text: str) -> list[bytes]:
        if not text or len(text) > 8 * MAX_TOKENS:
            raise ValueError(f"this picture has room for 1 to {8 * MAX_TOKENS:,} letters; got "
                             f"{len(text):,}. {'Shorten the text' if text else 'Type a few words'}")
        return merges_used(tokenizer, text)

    def draw(text: str, step: int) -> Figure:
        return merges_frame(tokenizer, text, merged=used(text)[:step])

    n_steps = len(used(text))
    return explore(draw, title="Watch it merge",
                   controls={"text": text, "step": slider(max(n_steps, 1), n_steps // 2)},
                   labels={"step": "merges done"},
                   limits=lambda text, **_: {"step": len(used(text))})


def merges_used(tokenizer: Tokenizer, text: str) -> list[bytes]:
    """Returns the tokens that merging makes in `text`, in the order in which they were learned.

    A merge is never undone, so every token that was made is a part of a final token. Splitting the
    final tokens therefore finds all of them.
    """
    special = set(tokenizer.special_ids.values())
    found, left = set(), [tokenizer.decode_bytes([i])
                          for i in set(tokenizer.encode(text)) - special]
    while left:
        token = left.pop()
        if len(token) > 1 and token not in found:
            found.add(token)
            left += halves(tokenizer, token)
    return sorted(found, key=tokenizer.ranks.__getitem__)


def halves(tokenizer: Tokenizer, token: bytes) -> list[bytes]:
    """Returns the two tokens that merge into `token`: the result of merging without `token`."""
    inside = {token[i:j] for i in range(len(token)) for j in range(i + 1, len(token) + 1)} - {token}
    ids = merge_word(token, {piece: tokenizer.ranks[piece]
                             for piece in inside if piece in tokenizer.ranks})
    return [tokenizer.decode_bytes([i]) for i in ids]


def merges_frame(tokenizer: Tokenizer, text: str, *, merged: Sequence[bytes]) -> Figure:
    """Draws `text` in tokens, with only the merges up to the last of `merged`."""
    last = tokenizer.ranks[merged[-1]] if merged else 255
    known = Tokenizer({token: rank for token, rank in tokenizer.ranks.items() if rank <= last},
                      pattern=tokenizer.pattern)
    ids = known.encode(text)
    if len(ids) > 3 * MAX_TOKENS:
        raise ValueError(f"this picture has room for {3 * MAX_TOKENS} "
                         f"tokens; got {len(ids):,}. Shorten the text")
    n_bytes = len(known.decode_bytes(ids))
    step = "single bytes"
    if merged:
        left, right = map(letters, halves(tokenizer, merged[-1]))
        step = f"{left} + {right} → {letters(merged[-1])} (merge {last - 255})"
    before, now, verb = (counted(n_bytes, "byte"), counted(len(ids), "token"),
                         "is" if n_bytes == 1 else "are")
    fig = tokens([known.decode_bytes([i]) for i in ids], title=f"{before}, {now}. Last: {step}")
    fig.set_label(f"Step {len(merged)}, {step}: {before} {verb} {now}.")
    return fig
