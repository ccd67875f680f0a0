"""Draws attention as a streaming sum: its state after each tile, joined parts, tiles that are read.

Notebook 33.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from matplotlib.figure import Figure

from llama_from_scratch.kernels.attention import rule_for
from llama_from_scratch.lessons.figures.flow import Drawing, Node
from llama_from_scratch.lessons.figures.look import BLUE, ORANGE, TINTS
from llama_from_scratch.model.mask import Everything, Visible, causal_mask

MAX_KEYS, MAX_TILES = 16, 8
_PITCH, _STRIP, _ROW, _BAR = 0.36, 0.85, 0.95, 0.6
WHOLE, PART, SKIPPED = TINTS[2], TINTS[1], "white"
_MAP_INCHES, _MIN_INCHES = 5.2, 0.04


# --- the state after each tile --------------------------------------------------------------------


class State(NamedTuple):
    """What is kept after a tile of scores.

    `shrink`: the factor of the old sums. `weights`: key -> its term in the sum `total`.
    """

    tile: tuple[int, ...]
    largest: float
    shrink: float
    total: float
    weights: dict[int, float]


def cut(n_keys: int, *, size: int, order: Sequence[int] | None = None) -> list[tuple[int, ...]]:
    """Returns the keys in tiles of `size`: 0 to n_keys - 1, or as `order` lists them."""
    keys = tuple(range(n_keys) if order is None else order)
    return [keys[i:i + size] for i in range(0, len(keys), size)]


def states_of(
    scores: Sequence[float], tiles: Sequence[Sequence[int]], *, is_rescaled: bool = True
) -> list[State]:
    """Returns the state of an online softmax after each tile of keys.

    Without `is_rescaled`, the old sums are not multiplied when the largest score grows.
    """
    largest, weights, found = -math.inf, {}, []
    for tile in tiles:
        grown = max(largest, *(scores[key] for key in tile))
        shrink = math.exp(largest - grown) if is_rescaled or not weights else 1.0
        weights = {key: weight * shrink for key, weight in weights.items()}
        weights |= {key: math.exp(scores[key] - grown) for key in tile}
        largest = grown
        found.append(State(tile=tuple(tile), largest=largest, shrink=shrink,
                           total=sum(weights.values()), weights=weights))
    return found


def states(
    scores: Sequence[float], *, size: int, order: Sequence[int] | None = None
) -> Figure:
    """Draws the state of an online softmax after each tile of `size` keys.

    A bar is a key's term in the sum, e^(score - largest so far). `order`: the keys, as they come.
    Raises ValueError for more keys or tiles than a page holds.

    Example: `streaming.states([0.5, 2.0, -1.0, 3.0, 1.0, 0.0], size=2)`
    """
    tiles = cut(len(scores), size=size, order=order)
    if not 1 <= len(scores) <= MAX_KEYS or len(tiles) > MAX_TILES:
        raise ValueError(f"this drawing has space for 1 to {MAX_KEYS} keys in at most {MAX_TILES} "
                         f"tiles; got {len(scores)} keys in {len(tiles)} tiles")
    drawing = Drawing("The sum after each tile")
    place = {key: _STRIP + _PITCH * (i + 0.5)
             for i, key in enumerate(key for tile in tiles for key in tile)}
    columns = [_STRIP + _PITCH * len(scores) + offset for offset in (0.6, 1.55, 2.4)]
    for words, x in zip(("largest m", "old sums ×", "sum l"), columns, strict=True):
        drawing.note(words, (x, 0.1), align="center")
    drawing.note("scores", (0.05, 0.1))
    for key, x in place.items():
        drawing.note(f"{scores[key]:.1f}", (x, 0.1), align="center")
    found = states_of(scores, tiles)
    for row, state in enumerate(found):
        floor = 1.05 + _ROW * row
        drawing.note(f"tile {row + 1}", (0.05, floor - 0.1))
        for key, weight in state.weights.items():
            height = max(_BAR * weight, 0.02)
            drawing.cell("", (place[key], floor - height / 2), width=_PITCH - 0.06, height=height,
                         color=ORANGE if key in state.tile else BLUE, has_edge=False)
        drawing.arrow((_STRIP, floor + 0.05), (_STRIP + _PITCH * len(scores), floor + 0.05),
                      color="0.75", has_head=False)
        shrink = "" if not row else f"{state.shrink:.2f}"
        for words, x in zip((f"{state.largest:.1f}", shrink, f"{state.total:.2f}"), columns,
                            strict=True):
            if words:
                drawing.note(words, (x, floor - 0.1), align="center")
    drawing.key({"this tile": ORANGE, "earlier tiles": BLUE},
                (_STRIP, 1.05 + _ROW * len(found) - 0.45))
    n_grown = sum(state.shrink < 1 for state in found[1:])
    return drawing.figure(
        f"A bar is a key's term in the sum, e^(score - m); the highest is 1. In {n_grown} of "
        f"{len(found) - 1} later tiles a larger score comes, and all earlier bars shrink by the "
        f"same factor. The last sum is {found[-1].total:.2f}.")


# --- parts that are joined ------------------------------------------------------------------------


def joined(scores: Sequence[float], *, n_parts: int) -> Figure:
    """Draws how partial results over parts of the keys are joined in pairs, with their weights.

    Each part has its own output and log-sum-exp (lse). A join weighs its two outputs by
    e^(lse - joined lse). Raises ValueError unless there are 2 to 4 parts, none of them empty.

    Example: `streaming.joined([0.5, 2.0, -1.0, 3.0, 1.0, 0.0, 2.5, 0.2], n_parts=4)`
    """
    if not 2 <= n_parts <= min(4, len(scores)):
        raise ValueError("this drawing joins 2 to 4 parts with at least one key each; got "
                         f"{n_parts} parts of {len(scores)} keys")
    drawing = Drawing("Partial results are joined")
    size = -(-len(scores) // n_parts)
    row: list[tuple[Node, float]] = []
    for i, keys in enumerate(cut(len(scores), size=size)):
        lse = _lse([scores[key] for key in keys])
        row.append((_result(drawing, f"keys {keys[0]} to {keys[-1]}", lse, (1.0 + 2.1 * i, 0.4)),
                    lse))
    depth = 0
    while len(row) > 1:
        depth += 1
        above, row = row, []
        for pair in (above[i:i + 2] for i in range(0, len(above), 2)):
            if len(pair) == 1:
                row += pair
                continue
            lse = _lse([lse for _, lse in pair])
            middle = sum(node.x for node, _ in pair) / 2
            name = "all keys" if len(above) == 2 else "joined"
            result = _result(drawing, name, lse, (middle, 0.4 + 1.45 * depth))
            for side, (node, part) in zip((-1, 1), pair, strict=True):
                end = result.x + side * 0.35
                y = node.bottom[1] + 0.25 if node.y > result.y - 2 else result.top[1] - 0.5
                drawing.arrow(node.bottom, (node.x, y), (end, y), (end, result.top[1]),
                              label=f"× {math.exp(part - lse):.2f}", is_left=side < 0)
            row.append((result, lse))
    return drawing.figure(
        f"Each of {n_parts} parts of the keys has an output and a log-sum-exp (lse). A join adds "
        "two outputs with the weights e^(lse - joined lse), which sum to 1. The last lse is "
        f"{row[0][1]:.2f}, as if the keys had never been cut.")


def _result(drawing: Drawing, name: str, lse: float, at: tuple[float, float]) -> Node:
    return drawing.step(name, at, detail=f"output, lse {lse:.2f}",
                        does="focus" if name == "all keys" else "plain")


def _lse(scores: Sequence[float]) -> float:
    largest = max(scores)
    return largest + math.log(sum(math.exp(score - largest) for score in scores))


# --- tiles that a kernel reads --------------------------------------------------------------------


class Tile(NamedTuple):
    """A tile of scores that a kernel computes: queries `query` ... `query_end` - 1, and its keys.

    `is_whole`: whether each of its queries sees each of its keys.
    """

    query: int
    query_end: int
    key: int
    key_end: int
    is_whole: bool


def visited(
    visible: Visible | Everything, *, queries: int, keys: int, shape: tuple[int, int]
) -> list[Tile]:
    """Returns the tiles that the library's kernel computes for one sequence, block by block.

    `queries`, `keys`: the size of a tile. `shape`: queries and keys of the sequence.
    """
    T, S = shape
    rule = rule_for(visible, batch=1, n_queries=T, n_keys=S)
    by_order = causal_mask(T, S) if rule.is_causal else torch.ones(1, T, S, dtype=torch.bool)
    seen_TS = by_order[0] if visible.mask is None else visible.mask[0, 0]
    found = []
    for query in range(0, T, queries):
        query_end = min(query + queries, T)
        end = query_end + S - T if rule.is_causal else S
        begin = 0 if rule.first is None else int(rule.first[0, query + S - T:end].min())
        for key in range(begin, end, keys):
            key_end = min(key + keys, S)
            found.append(Tile(query=query, query_end=query_end, key=key, key_end=key_end,
                              is_whole=bool(seen_TS[query:query_end, key:key_end].all())))
    return found


def tiles(
    visible: Visible | Everything, *, queries: int, keys: int, shape: tuple[int, int],
    title: str = "Which tiles of scores are computed",
) -> Figure:
    """Draws the tiles that the library's kernel computes, and those that it never reads.

    A row is a block's tile of queries; keys go from left to right. The arguments are as in
    `visited`. Raises ValueError for tiles that are too small to see.

    Example: `streaming.tiles(Visible(tokens=plain_tokens(256), n_queries=256), queries=64,
    keys=32, shape=(256, 256))`
    """
    T, S = shape
    scale = _MAP_INCHES / max(T, S)
    if min(queries, keys) * scale < _MIN_INCHES:
        raise ValueError(f"tiles of {queries} x {keys} are too small to see among {T} x {S} "
                         f"scores; take at most {int(_MAP_INCHES / _MIN_INCHES)} tiles in a row")
    found = visited(visible, queries=queries, keys=keys, shape=shape)
    drawing = Drawing(title)
    left, top = 1.35, 0.4

    def cell(rows: tuple[int, int], columns: tuple[int, int], color: str) -> None:
        if columns[0] < columns[1]:
            drawing.cell("", (left + scale * sum(columns) / 2, top + scale * sum(rows) / 2),
                         width=scale * (columns[1] - columns[0]),
                         height=scale * (rows[1] - rows[0]), color=color)

    drawing.note(f"keys 0 to {S - 1}", (left, top - 0.2))
    for query in range(0, T, queries):
        rows = (query, min(query + queries, T))
        mine = [tile for tile in found if tile.query == query]
        if scale * queries > 0.25:
            drawing.note(f"queries {rows[0]}…{rows[1] - 1}", (0.05, top + scale * sum(rows) / 2))
        begin, end = (mine[0].key, mine[-1].key_end) if mine else (S, S)
        cell(rows, (0, begin), SKIPPED)
        for tile in mine:
            cell(rows, (tile.key, tile.key_end), WHOLE if tile.is_whole else PART)
        cell(rows, (end, S), SKIPPED)
    drawing.key({"every pair is seen": WHOLE, "some pairs are hidden": PART,
                 "never read": SKIPPED}, (left, top + scale * T + 0.25))
    n_all = -(-T // queries) * -(-S // keys)
    n_part = sum(not tile.is_whole for tile in found)
    return drawing.figure(
        f"{len(found)} of {n_all} tiles are computed, {len(found) / n_all:.0%}. In {n_part} of "
        "them some pairs are hidden, so that each pair must be compared with the rule.")
