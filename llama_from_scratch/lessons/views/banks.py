"""Shows how a swizzle distributes a tile among the banks, and the passes that a read then takes.

Used by the chapter on tensor cores (37).
"""

from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures import banks
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore


def swizzle() -> Explorer:
    """Returns a widget with the pattern and the chunks that are read."""
    return explore(swizzle_frame, title="Eight rows, 32 banks", controls={
        "pattern": list(banks.PATTERNS), "chunk": {str(n): n for n in range(0, banks.CHUNKS, 2)}},
        labels={"pattern": "pattern", "chunk": "chunk read (of 16 bytes)"})


def swizzle_frame(pattern: str, chunk: int) -> Figure:
    """Draws the tile bank by bank, and the chunk that is read."""
    return banks.tile(pattern, chunk=chunk)
