"""Shows an online softmax while it reads a row of scores, tile by tile.

Used by the chapter on flash attention (33).
"""

import random
from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.look import BLUE, ORANGE, RED
from llama_from_scratch.lessons.figures.streaming import State, cut, states_of
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore

ORDERS = ("from left to right", "from right to left", "smallest first", "largest first", "shuffled")
_NOT_READ = "0.85"


def online_softmax(scores: Sequence[float], *, size: int = 3) -> Explorer:
    """Returns a widget that reads scores tile by tile, and shows the largest, the sum, the weights.

    Its controls are the size of a tile, the order of the keys, how many tiles have been read, and
    whether the old sums are rescaled when the largest score grows. `size`: of a tile, at first.
    """
    if len(scores) < 2:
        raise ValueError(f"a row to read tile by tile needs at least 2 scores; got {len(scores)}")
    sizes = sorted({1, 2, size, len(scores) // 2, len(scores)})

    def draw(n_read: int, size: int, order: str, is_rescaled: bool) -> Figure:
        return online_softmax_frame(scores, n_read=n_read, size=size, order=order,
                                    is_rescaled=is_rescaled)

    return explore(
        draw, title="A softmax that reads tile by tile",
        controls={"n_read": (1, -(-len(scores) // size)), "size": sizes, "order": list(ORDERS),
                  "is_rescaled": True},
        labels={"n_read": "tiles read", "size": "scores in a tile", "order": "order of the keys",
                "is_rescaled": "rescale the old sums"},
        start={"size": size},
        limits=lambda size, **_: {"n_read": -(-len(scores) // size)})


def order_of(scores: Sequence[float], order: str) -> list[int]:
    """Returns the keys in one of ORDERS."""
    keys = list(range(len(scores)))
    if order == "from left to right":
        return keys
    if order == "from right to left":
        return keys[::-1]
    if order == "shuffled":
        return random.Random(0).sample(keys, len(keys))
    if order in ORDERS:
        return sorted(keys, key=lambda key: scores[key], reverse=order == "largest first")
    raise ValueError(f"the order must be one of {', '.join(ORDERS)}; got {order!r}")


def online_softmax_frame(
    scores: Sequence[float], *, n_read: int, size: int, order: str = ORDERS[0],
    is_rescaled: bool = True,
) -> Figure:
    """Draws the scores that have been read, and their terms in the sum after `n_read` tiles."""
    tiles = cut(len(scores), size=size, order=order_of(scores, order))
    if not 1 <= n_read <= len(tiles):
        raise ValueError(f"1 to {len(tiles)} tiles can be read; got {n_read}")
    found = states_of(scores, tiles[:n_read], is_rescaled=is_rescaled)
    state = found[-1]
    keys = range(len(scores))
    colors = [ORANGE if key in state.tile else BLUE if key in state.weights else _NOT_READ
              for key in keys]
    fig, (top, bottom) = plt.subplots(2, 1, figsize=(7.2, 4.6), sharex=True)
    low = min(0.0, *scores) - 0.5   # so that the smallest score has a bar, too
    top.bar(keys, [score - low for score in scores], bottom=low, color=colors)
    top.axhline(state.largest, color=RED, linestyle="--", linewidth=1.6)
    top.set(ylabel="score", ylim=(low, max(scores) + 0.9),
            title=f"Read {n_read} of {len(tiles)} tiles (orange: the last); dashed: largest so far")
    terms = [state.weights.get(key, 0.0) for key in keys]
    bars = bottom.bar(keys, terms, color=colors)
    bottom.bar_label(bars, [f"{term:.2f}" if key in state.weights else ""
                            for key, term in enumerate(terms)], fontsize=10, padding=2)
    bottom.set(xlabel="key", ylabel="term in the sum", xticks=list(keys), ylim=(0, 1.25),
               title=f"largest {state.largest:.2f},  sum {state.total:.3f}")
    fig.set_label(_words(scores, tiles, found, is_rescaled=is_rescaled))
    return fig


def _words(
    scores: Sequence[float], tiles: Sequence[Sequence[int]], found: Sequence[State], *,
    is_rescaled: bool,
) -> str:
    state, n_read = found[-1], len(found)
    read = [score for key, score in enumerate(scores) if key in state.weights]
    (exact,) = states_of(read, [range(len(read))])
    if n_read == 1:
        change = "It is the first tile."
    elif state.largest == found[-2].largest:
        change = "The largest score stays, so the old sums stay."
    elif is_rescaled:
        change = f"The largest score grows, so the old sums are multiplied by {state.shrink:.2f}."
    else:
        change = "The largest score grows, but the old sums are not rescaled."
    verdict = ("equal to the sum in one step" if abs(state.total - exact.total) < 1e-9
               else f"in one step it is {exact.total:.3f}")
    return (f"Tile {n_read} of {len(tiles)}. {change} The sum of e^(score - largest) is "
            f"{state.total:.3f}: {verdict}.")
