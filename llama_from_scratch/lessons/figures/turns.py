"""Drawings of a chat: its turns as one list of ids, and the steps from a dialog to an answer.

Notebook 19.
"""

from collections.abc import Sequence

from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.boxes import letters
from llama_from_scratch.lessons.figures.flow import Drawing
from llama_from_scratch.lessons.figures.look import ORANGE, TINTS
from llama_from_scratch.tokenizer.chat_format import ChatFormat, Headers, Message, Special
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer

_SPECIAL, _FRAME = "#4D4D4D", "#D4D4D4"
ROLES = {"system": TINTS[4], "user": TINTS[0], "assistant": TINTS[2], "ipython": TINTS[1]}
_LEFT, _RIGHT, _LINE = 0.95, 8.75, 0.33


def one_list(format: ChatFormat, tokenizer: AnyTokenizer, dialog: Sequence[Message]) -> Figure:
    """Draws a dialog as the list of ids that the model reads, with each turn on a new line.

    Special tokens are dark; the names of roles and line ends are gray; the color of content shows
    who wrote it. Raises ValueError for a format without headers, such as Llama 2's.

    Example: `turns.one_list(LLAMA_3_1, tokenizer, [Message(role="user", content="Hello!")])`
    """
    _need_headers(format)
    owned = owners(format, tokenizer, dialog)
    drawing = Drawing(f"{len(dialog)} messages are one list of {len(owned)} ids")
    names = {i: name for name, i in tokenizer.special_ids.items()}
    x, y, n_turns = _LEFT, 0.0, 0
    for number, (token, part, role) in enumerate(owned):
        words = names.get(token) or letters(tokenizer.decode_bytes([token]))
        if words == format.frame.start:
            x, y, n_turns = _LEFT, y + (_LINE + 0.12) * (n_turns > 0 or number > 0), n_turns + 1
            drawing.note(owned[number + 1][2], (0.05, y))
        color = {"special": _SPECIAL, "frame": _FRAME}.get(part) or ROLES[role]
        x, y = _append(drawing, words, (x, y), color=color)
    _append(drawing, "the model writes from here on", (x, y), color=ORANGE)
    drawing.key({"special token": _SPECIAL, "written by the format": _FRAME},
                (_LEFT, y + 0.5))
    drawing.key({f"the {role}'s words": color for role, color in ROLES.items()
                 if any(role == r and part == "content" for _, part, r in owned)},
                (_LEFT, y + 0.8))
    ends = " or ".join(sorted(names[i] for i in format.stop_ids(tokenizer)))
    drawing.note(f"It writes until {ends}.", (_LEFT, y + 1.1))
    return drawing.figure(
        "Only the ids of a header say who is speaking. The last header opens the assistant's turn, "
        "and the model continues the list from there.")


def _append(
    drawing: Drawing, words: str, at: tuple[float, float], *, color: str
) -> tuple[float, float]:
    """Adds a cell with its left edge at a place, or on the next line; returns the next place."""
    (x, y), probe = at, Drawing("").cell(words, at)
    if x + probe.width > _RIGHT:
        x, y = _LEFT + 0.4, y + _LINE
    made = drawing.cell(words, (x + probe.width / 2, y), color=color)
    return made.right[0] + 0.04, y


def owners(
    format: ChatFormat, tokenizer: AnyTokenizer, dialog: Sequence[Message]
) -> list[tuple[int, str, str]]:
    """Returns (id, "special", "frame" or "content", role) for each id of a dialog.

    `format.encode` gives the same ids, which is asserted.
    """
    found: list[tuple[int, str, str]] = []
    role, place = "", 0
    for part in format.lay_out(dialog):
        if isinstance(part, Special):
            place = 1 if part.name == format.frame.start else place + 1 if place == 2 else 0
            found.append((tokenizer.special_ids[part.name], "special", role))
            continue
        if place == 1:
            role, place = part, 2
            kind = "frame"
        elif place == 3:
            kind, place = "frame", 0
        else:
            kind = "content"
        found += [(i, kind, role) for i in tokenizer.encode(part)]
    assert [i for i, _, _ in found] == format.encode(dialog, tokenizer)
    return found


def _need_headers(format: ChatFormat) -> None:
    if not isinstance(format.frame, Headers):
        raise ValueError("this drawing needs a format with headers, which Llama 3 and later have; "
                         f"got {format.name}, which marks turns in the text")


def round_trip(format: ChatFormat, tokenizer: AnyTokenizer, dialog: Sequence[Message]) -> Figure:
    """Draws the steps from a dialog to the model and from its answer back to the dialog.

    Example: `turns.round_trip(LLAMA_3_1, tokenizer, [Message(role="user", content="Hello!")])`
    """
    parts = format.lay_out(dialog)
    ids = format.encode(dialog, tokenizer)
    n_special = sum(isinstance(part, Special) for part in parts)
    names = {i: name for name, i in tokenizer.special_ids.items()}
    stops = sorted(names[i] for i in format.stop_ids(tokenizer))
    drawing = Drawing("A chat is a loop around a model that only continues lists")
    messages = drawing.step("messages", (0.75, 0.5), detail=f"{len(dialog)} so far")
    layout = drawing.step("lay out", (2.4, 0.5), does="focus",
                          detail=f"{n_special} special tokens\nand {len(parts) - n_special} texts")
    encode = drawing.step("encode", (4.45, 0.5), does="focus", detail="texts cannot become\n"
                                                                      "special tokens")
    listed = drawing.tensor("ids", (6.35, 0.5), shape={"B": 1, "T": len(ids)})
    model = drawing.step("Llama", (7.9, 0.5), does="weights", detail="one id at a time")
    for a, b in ((messages, layout), (layout, encode), (encode, listed), (listed, model)):
        drawing.arrow(a, b)
    stop = drawing.step("stop", (7.9, 1.9), does="choice", detail="\n".join(stops))
    drawing.arrow(model, stop)
    parse = drawing.step("parse", (4.45, 1.9), does="focus", detail="ids to one message,\n"
                                                                    "words or tool calls")
    drawing.arrow(stop, parse, label="ids of the answer")
    drawing.arrow(parse, (0.75, 1.9), messages, color=ORANGE)
    drawing.note("append", (1.2, 1.78))
    return drawing.figure(
        f"{len(dialog)} messages become {len(ids)} ids. A program does the blue steps. The model "
        "sees only one list and writes until a stop id.")
