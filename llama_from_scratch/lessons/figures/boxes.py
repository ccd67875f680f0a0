"""Draws a text cut into tokens, each in a colored box."""

import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from llama_from_scratch.lessons.figures.look import TINTS

LABEL_PT, ID_PT = 13, 10
_ADVANCE = 1233 / 2048  # from letter to letter in DejaVu Sans Mono, as part of its size
_PAD, _GAP, _TITLE, _BOX, _PITCH, _PITCH_WITH_IDS = 0.08, 0.035, 0.36, 0.27, 0.38, 0.54


class Box(NamedTuple):
    """The place of one token in a picture, in inches from the top left, and its words.

    `label` is written in the box, and `number` below it.
    """

    label: str
    number: str
    left: float
    top: float
    width: float


def tokens(
    pieces: Sequence[bytes], *, title: str, ids: Sequence[int] | None = None, columns: int = 64
) -> Figure:
    """Draws a text cut into tokens, in lines of about `columns` letters, with `ids` below.

    A token has the same color wherever it appears; a single byte is gray. A space is drawn as a
    dot. Bytes are written in hexadecimal if they are no whole character or the font lacks it. A
    token longer than a line ends with "…".
    """
    boxes = token_boxes(pieces, ids=ids, columns=columns)
    width = max(8, _PAD + max((box.left + box.width for box in boxes), default=0))
    last = _BOX if ids is None else _PITCH_WITH_IDS
    height = max((box.top for box in boxes), default=0) + last + _PAD
    fig = plt.figure(figsize=(width, _TITLE + height), layout="none")
    ax = fig.add_axes((0, 0, 1, height / (_TITLE + height)), xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    ax.set_title(title, x=_PAD / width, parse_math=False)
    corners = [[(box.left, box.top), (box.left + box.width, box.top),
                (box.left + box.width, box.top + _BOX), (box.left, box.top + _BOX)]
               for box in boxes]
    tints = [_tint(piece) for piece in pieces]
    ax.add_collection(PolyCollection(corners, facecolors=tints, linewidth=0), autolim=False)
    # One path for all letters, because matplotlib takes 2 ms for each separate text, which is too
    # slow for a page of tokens.
    glyphs: dict[str, TextPath] = {}
    for lines, size, below, color in (
            ([box.label for box in boxes], LABEL_PT, 0.68 * _BOX, "black"),
            ([box.number for box in boxes], ID_PT, _BOX + 0.16, "0.3")):
        written = [path for box, words in zip(boxes, lines, strict=True) for path in _written(
            words, middle=box.left + box.width / 2, baseline=box.top + below, size=size,
            glyphs=glyphs)]
        if written:
            # add_artist is fast because it measures nothing
            ax.add_artist(PathPatch(Path.make_compound_path(*written), color=color, linewidth=0))
    return fig


def token_boxes(
    pieces: Sequence[bytes], *, ids: Sequence[int] | None = None, columns: int = 64
) -> list[Box]:
    """Returns where `tokens` puts each piece.

    Pieces are placed from left to right. A new line starts after `columns` letters.
    """
    labels = [label if len(label) < columns else label[: columns - 2] + "…"
              for label in map(letters, pieces)]
    numbers = [""] * len(labels) if ids is None else [str(number) for number in ids]
    letter, digit = (size / 72 * _ADVANCE for size in (LABEL_PT, ID_PT))
    left, top, boxes = _PAD, 0.0, []
    for label, number in zip(labels, numbers, strict=True):
        width = max((len(label) + 0.5) * letter, (len(number) + 0.5) * digit)
        if left > _PAD and left + width > _PAD + (columns + 0.5) * 1.12 * letter:
            left, top = _PAD, top + (_PITCH if ids is None else _PITCH_WITH_IDS)
        boxes.append(Box(label, number, left, top, width))
        left += width + _GAP
    return boxes


def _tint(piece: bytes) -> str:
    """Returns a color that depends only on the token, so that it stays while other tokens merge."""
    return TINTS[zlib.crc32(piece) % len(TINTS)] if len(piece) > 1 else "0.9"


def _written(
    words: str, *, middle: float, baseline: float, size: int, glyphs: dict[str, TextPath]
) -> Iterator[Path]:
    """Returns the outlines of `words` around `middle`, in inches.

    New letters are added to `glyphs`, at a size of one.
    """
    start = middle - len(words) * _ADVANCE * size / 144
    for place, letter in enumerate(words):
        if letter not in glyphs:
            glyphs[letter] = TextPath((0, 0), letter, size=1,
                                      prop=FontProperties(family="DejaVu Sans Mono"))
        glyph = glyphs[letter]
        if len(glyph.vertices):
            scale = np.array((size / 72, -size / 72))
            yield Path(glyph.vertices * scale + (start + place * _ADVANCE * size / 72, baseline),
                       glyph.codes)


def letters(piece: bytes) -> str:
    """Returns how a token is written in a picture.

    Spaces are written as dots, and bytes that cannot be drawn as hexadecimal.
    """
    try:
        text = piece.decode().replace(" ", "·").replace("\n", "↵").replace("\t", "→")
    except UnicodeDecodeError:
        return piece.hex(" ").upper()
    is_drawable = text.isprintable() and (piece.isascii() or _has_glyphs(text))
    return text if is_drawable else piece.hex(" ").upper()


def _has_glyphs(text: str) -> bool:
    font = get_font(findfont("DejaVu Sans Mono"))
    return all(font.get_char_index(ord(letter)) for letter in text)
