"""Shows who attends to whom across ranks, and how evenly the work is divided.

The frame is `figures.context.sight`. Used by chapter 45.
"""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures import context
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore

DOCUMENTS = {"one": (24,), "two": (12, 12), "a long one, then short ones": (14, 4, 3, 3),
             "short ones, then a long one": (3, 3, 4, 14)}
CHUNKS = {"none": None, "12": 12, "6": 6, "3": 3}


def context_ranks(*, start: Mapping[str, Any] | None = None) -> Explorer:
    """Returns a widget with ranks, the cut, documents and chunks, which shows the mask by rank.

    `start`: other first values, such as {"n_ranks": 4}.
    """
    def draw(n_ranks: int, cut: context.Cut, documents: str, chunk_size: str) -> Figure:
        return context.sight(n_ranks=n_ranks, cut=cut, documents=DOCUMENTS[documents],
                             chunk_size=CHUNKS[chunk_size])

    return explore(
        draw, title="Who attends to whom across ranks",
        controls={"n_ranks": (2, context.MAX_RANKS), "cut": list(context.CUTS),
                  "documents": list(DOCUMENTS), "chunk_size": list(CHUNKS)},
        labels={"n_ranks": "ranks (cp)", "cut": "pieces", "documents": "documents in the row",
                "chunk_size": "chunks of a layer"},
        start={"n_ranks": 2, "cut": "contiguous"} | dict(start or {}))
