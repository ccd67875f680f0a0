"""Pictures of dialogs: the one list of ids that a chat model reads, and the loop around a tool.

Notebook 19.
"""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from llama_from_scratch.lessons.figures.boxes import token_boxes
from llama_from_scratch.lessons.figures.flow import Drawing
from llama_from_scratch.lessons.figures.turns import ROLES
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.chat_format import Message
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece

SPECIAL = "0.3"
_NOBODY = "0.9"
_COLUMNS, _WIDTH, _BOX, _TITLE, _KEY = 72, 9.0, 0.27, 0.35, 0.75
_MODEL, _PROGRAM, _TOOL, _PITCH = 0.9, 4.3, 7.7, 0.46
_LONGEST = 40


def speakers(ids: Sequence[int], tokenizer: Tokenizer | SentencePiece) -> list[str]:
    """Whose each id is, read from left to right: a role, or "" before the first header.

    A header belongs to the role that it names. Llama 2 has no headers: there the marks in the text
    decide, from their last letter on.
    """
    names = {i: name for name, i in tokenizer.special_ids.items()}
    words = [names.get(i) or tokenizer.decode_bytes([i]).decode(errors="replace") for i in ids]
    is_in_text = "<s>" in tokenizer.special_ids
    role, said, found = "", "", []
    for i, word, following in zip(ids, words, [*words[1:], ""], strict=True):
        if i in names and word in ("<|start_header_id|>", "<|header_start|>"):
            role = following
        if is_in_text:
            is_system = "<<SYS>>" in said and "<</SYS>>" not in said
            role = "assistant" if "[/INST]" in said else "system" if is_system else "user"
            said = "" if word == "<s>" else said + word
        found.append(role)
    return found


def turns(
    ids: Sequence[int], tokenizer: Tokenizer | SentencePiece, *, title: str, first: int = 0
) -> Figure:
    """Every id from the place `first` on as a box: special tokens dark, the rest by who speaks.

    Example: `dialogs.turns(format.encode(messages, tokenizer), tokenizer, title="A dialog")`
    """
    special, speaking = set(tokenizer.special_ids.values()), speakers(ids, tokenizer)[first:]
    looks = [Look(ground=SPECIAL, ink="white") if i in special
             else Look(ground=ROLES.get(role, _NOBODY))
             for i, role in zip(ids[first:], speaking, strict=True)]
    key = [Patch(color=SPECIAL, label="special token"),
           *(Patch(color=tint, label=role) for role, tint in ROLES.items()
             if role in speaking)]
    n_special = sum(i in special for i in ids[first:])
    fig = id_boxes(ids[first:], tokenizer, looks=looks, key=key, title=title)
    fig.set_label(f"{title}: {len(ids) - first} ids, {n_special} of them special")
    return fig


class Look(NamedTuple):
    """The colors of a box: of its ground, its letters and its edge; None for no edge."""

    ground: str
    ink: str = "black"
    edge: str | None = None


def id_boxes(
    ids: Sequence[int], tokenizer: Tokenizer | SentencePiece, *, looks: Sequence[Look],
    key: Sequence[Patch], title: str, columns: int = _COLUMNS
) -> Figure:
    """Draws every id as a box with its text, special tokens by name, and `key` below them."""
    names = {i: name for name, i in tokenizer.special_ids.items()}
    boxes = token_boxes([names[i].encode() if i in names else tokenizer.decode_bytes([i])
                         for i in ids], columns=columns)
    height = boxes[-1].top + _KEY
    fig = plt.figure(figsize=(_WIDTH, height + _TITLE), layout="none", facecolor="white")
    ax = fig.add_axes((0, 0, 1, height / (height + _TITLE)), xlim=(0, _WIDTH), ylim=(height, 0))
    ax.axis("off")
    ax.set_title(title, x=0.01, parse_math=False)
    for box, look in zip(boxes, looks, strict=True):
        ax.add_patch(plt.Rectangle((box.left, box.top), box.width, _BOX, facecolor=look.ground,
                                   edgecolor=look.edge or look.ground,
                                   lw=1.4 if look.edge else 0))
        ax.text(box.left + box.width / 2, box.top + 0.14, box.label, color=look.ink, ha="center",
                va="center", family="monospace", fontsize=13, parse_math=False)
    ax.legend(handles=list(key), ncols=5, loc="lower left")
    return fig


def tool_loop(dialog: Sequence[Message], *, n_ids: Sequence[int]) -> Figure:
    """Who hands what to whom, from top to bottom, until the model answers without a call.

    `dialog`: the messages at the end. `n_ids`: the length of each prompt. Raises ValueError if
    there is not one prompt for each message of the assistant.

    Example: `dialogs.tool_loop(finished, n_ids=[660, 734])`
    """
    answers = [message for message in dialog if message.role == "assistant"]
    if len(answers) != len(n_ids):
        raise ValueError("each message of the assistant answers one prompt; got "
                         f"{len(answers)} messages and {len(n_ids)} prompts")
    drawing, y = Drawing("A tool call: who hands what to whom"), 0.0
    results = [message for message in dialog if message.role == "ipython"]
    ends = [drawing.step(name, (x, 0.0), does=does) for name, x, does in (
        ("the model", _MODEL, "weights"), ("your program", _PROGRAM, "focus"),
        ("the function", _TOOL, "plain"))]
    for answer, length in zip(answers, n_ids, strict=True):
        y = _hand(drawing, _PROGRAM, _MODEL, y, f"prompt: {length:,} ids")
        y = _hand(drawing, _MODEL, _PROGRAM, y,
                  f"a call of {answer.tool_calls[0].name}" if answer.tool_calls
                  else _short(answer.content))
        for call in answer.tool_calls:
            words = ", ".join(f"{name}={value}" for name, value in call.arguments.items())
            y = _hand(drawing, _PROGRAM, _TOOL, y, _short(words))
            y = _hand(drawing, _TOOL, _PROGRAM, y, _short(results.pop(0).content))
    for end in ends:
        drawing.arrow(end, (end.x, y + 0.3), color="0.75", has_head=False)
    n_calls = sum(len(answer.tool_calls) for answer in answers)
    return drawing.figure(f"The model is asked {len(answers)} times and the function runs "
                          f"{n_calls} times; every arrow begins or ends at your program.")


def _hand(drawing: Drawing, start: float, end: float, y: float, words: str) -> float:
    """Draws an arrow with words below `y`, and returns its height."""
    y += _PITCH
    drawing.arrow((start, y), (end, y), label=words)
    return y


def _short(words: str) -> str:
    return words if len(words) <= _LONGEST else f"{words[: _LONGEST - 1]}…"
