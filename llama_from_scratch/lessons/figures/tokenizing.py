"""Drawings of how text becomes ids: all stages of a text, and the merges of a word as a tree.

Notebook 10.
"""

from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.boxes import letters
from llama_from_scratch.lessons.figures.flow import Drawing, Node
from llama_from_scratch.lessons.figures.look import TINTS
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.merges import merge_word
from llama_from_scratch.tokenizer.split import Splitter

_CELL, _LABELS = 0.37, 0.8
_MAX_BYTES = 20


def text_to_ids(tokenizer: Tokenizer, text: str) -> Figure:
    """Draws a short text, its pieces by the split pattern, their bytes, the tokens and the ids.

    Each token is below the bytes that were merged into it. Raises ValueError for a text of more
    than 20 bytes.

    Example: `tokenizing.text_to_ids(tokenizer, "a friend said 10")`
    """
    data = text.encode()
    if not 0 < len(data) <= _MAX_BYTES:
        raise ValueError(f"this drawing has room for 1 to {_MAX_BYTES} bytes; got {len(data)}. "
                         "Use only a few words")
    pieces = Splitter(tokenizer.pattern)(text)
    ids = [tokenizer.encode(piece) for piece in pieces]
    drawing = Drawing("From text to ids: cut, spell in bytes, merge, look up")
    rows = {"text": 0.2, "pieces": 0.85, "bytes": 1.5, "tokens": 2.15, "ids": 2.8}
    for words, y in rows.items():
        drawing.note(words, (0.05, y))
    starts = _starts([len(piece.encode()) for piece in pieces])
    end = starts[-1] + _CELL * len(pieces[-1].encode())
    _cell(drawing, f'"{text}"', starts[0], end, rows["text"])
    for number, (piece, start, piece_ids) in enumerate(zip(pieces, starts, ids, strict=True)):
        tint = TINTS[number % len(TINTS)]
        stop = start + _CELL * len(piece.encode())
        cut = _cell(drawing, letters(piece.encode()), start, stop, rows["pieces"], color=tint)
        drawing.arrow((cut.x, rows["text"] + 0.14), cut)
        for i, byte in enumerate(piece.encode()):
            _cell(drawing, f"{byte:02X}", start + _CELL * i, start + _CELL * (i + 1), rows["bytes"])
        drawing.arrow(cut, (cut.x, rows["bytes"] - 0.14))
        left = start
        for token in piece_ids:
            spelled = tokenizer.decode_bytes([token])
            right = left + _CELL * len(spelled)
            made = _cell(drawing, letters(spelled), left, right, rows["tokens"], color=tint)
            drawing.arrow((made.x, rows["bytes"] + 0.14), made)
            drawing.arrow(made, (made.x, rows["ids"] - 0.14))
            _cell(drawing, f"{token}", left, right, rows["ids"])
            left = right
    n_ids = sum(map(len, ids))
    return drawing.figure(
        f"{len(data)} bytes in {len(pieces)} pieces become {n_ids} ids. Each token has only one "
        "color, because merges happen within a piece.")


def _starts(lengths: list[int]) -> list[float]:
    """Returns the left edges of the pieces, with a small space between them."""
    return [_LABELS + _CELL * sum(lengths[:i]) + 0.12 * i for i in range(len(lengths))]


def _cell(
    drawing: Drawing, words: str, left: float, right: float, y: float, *, color: str = "white"
) -> Node:
    return drawing.cell(words, ((left + right) / 2, y), width=right - left, color=color)


def merge_tree(tokenizer: Tokenizer, word: str) -> Figure:
    """Draws one word's merges as a tree: bytes below, tokens above, one row for each merge.

    The rows are in the order of the merges, with their ranks. Raises ValueError for a word of more
    than 16 bytes, or a word that the split pattern cuts into several pieces.

    Example: `tokenizing.merge_tree(tokenizer, " friend")`
    """
    pieces = Splitter(tokenizer.pattern)(word)
    if len(pieces) != 1 or len(word.encode()) > 16:
        raise ValueError("a tree shows one piece of the split pattern, with at most 16 bytes; got "
                         f"{pieces}. Use one word")
    steps = merges_of(tokenizer, word.encode())
    drawing = Drawing(f"How {letters(word.encode())} is merged")
    parts = [bytes([byte]) for byte in word.encode()]
    base = 0.45 + 0.5 * len(steps)
    nodes = [drawing.cell(letters(part), (2.3 + 0.62 * i, base), width=0.34)
             for i, part in enumerate(parts)]
    drawing.note("bytes", (0.05, base))
    for number, (left, rank) in enumerate(steps, 1):
        a, b = nodes[left : left + 2]
        merged = parts[left] + parts[left + 1]
        words = letters(merged)
        # a dot at the edge of its box is hard to see
        made = drawing.cell(words, ((a.x + b.x) / 2, base - 0.5 * number), color=TINTS[0],
                            width=max(0.14 + 0.08 * len(words), 0.34))
        for below in (a, b):
            drawing.arrow((below.x, below.top[1]), (below.x, made.y), made, has_head=False)
        drawing.note(f"{number}. merge {rank - 255:,}", (0.05, made.y))
        parts[left : left + 2], nodes[left : left + 2] = [merged], [made]
    whole = " + ".join(letters(part) for part in parts)
    return drawing.figure(
        f"Among all neighboring pairs, the one that was learned first is merged first. After "
        f"{len(steps)} merges no known pair is left: {whole}.")


def merges_of(tokenizer: Tokenizer, word: bytes) -> list[tuple[int, int]]:
    """Returns (place of the left part, rank of the pair) of each merge of a word, in order.

    The library's `merge_word` gives the same result, which is asserted.
    """
    parts, found = [bytes([byte]) for byte in word], []
    while pairs := [(tokenizer.ranks[a + b], i) for i, (a, b) in enumerate(
            zip(parts, parts[1:], strict=False)) if a + b in tokenizer.ranks]:
        rank, left = min(pairs)
        found.append((left, rank))
        parts[left : left + 2] = [parts[left] + parts[left + 1]]
    assert [tokenizer.ranks[part] for part in parts] == merge_word(word, tokenizer.ranks)
    return found
