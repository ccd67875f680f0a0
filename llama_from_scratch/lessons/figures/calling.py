"""Drawings of tool use: who says what to whom, and what a reader finds in the text of a call.

Notebook 55.
"""

import ast
import textwrap
from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.flow import Drawing
from llama_from_scratch.lessons.figures.look import TINTS
from llama_from_scratch.lessons.figures.turns import ROLES
from llama_from_scratch.tokenizer.chat_format import Message, ToolCall

_LANES = {"user": 0.6, "assistant": 4.2, "tool": 8.2}
_LETTERS, _MAX_LINES, _LINE = 34, 3, 0.19
_FINE, _REFUSED = TINTS[2], TINTS[3]


def exchange(dialog: Sequence[Message], *, title: str, n_shown: int | None = None) -> Figure:
    """Draws who says what to whom, from top to bottom; the system's message is left out.

    `n_shown`: only the first messages of the dialog. Raises ValueError if there is none to draw.

    Example: `calling.exchange(trace.messages, title="A sum of two look-ups")`
    """
    said = [each for message in dialog[:n_shown] for each in _arrows_of(message)]
    if not said:
        raise ValueError("an exchange needs a message of the user, the assistant or a tool; got "
                         f"{len(dialog[:n_shown])} messages without one. Show more of them")
    drawing, y = Drawing(title), 0.0
    ends = [drawing.step(name, (x, y), does="focus" if name == "assistant" else "plain")
            for name, x in _LANES.items()]
    y += 0.3
    for start, end, words, color in said:
        lines = textwrap.wrap(words.strip() or "(no text)", _LETTERS, max_lines=_MAX_LINES,
                              placeholder="…")
        tall = _LINE * len(lines) + 0.12
        y += tall / 2 + 0.08
        drawing.arrow((_LANES[start], y), (_LANES[end], y))
        middle = (_LANES[start] + _LANES[end]) / 2
        drawing.cell("\n".join(lines), (middle, y), color=color, has_edge=False)
        y += tall / 2
    for each in ends:
        drawing.arrow(each, (each.x, y + 0.15), color="0.8", has_head=False)
    n_calls, n_results = (sum(a == start and b == end for a, b, _, _ in said)
                          for start, end in (("assistant", "tool"), ("tool", "assistant")))
    answer = f" The user reads: {said[-1][2].strip()}" if said[-1][1] == "user" else ""
    return drawing.figure(f"The assistant has made {n_calls} calls and read {n_results} results."
                          f"{answer}")


def _arrows_of(message: Message) -> list[tuple[str, str, str, str]]:
    """Returns (from, to, words, color) of a message; a call is an arrow of its own."""
    color = ROLES[message.role]
    if message.role == "user":
        return [("user", "assistant", message.content, color)]
    if message.role == "ipython":
        return [("tool", "assistant", message.content, color)]
    if message.role == "assistant" and message.tool_calls:
        return [("assistant", "tool", _call_text(call), color) for call in message.tool_calls]
    return [("assistant", "user", message.content, color)] if message.role == "assistant" else []


def _call_text(call: ToolCall) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in call.arguments.items())
    return f"{call.name}({arguments})"


def syntax(text: str) -> Figure:
    """Draws the syntax tree of a text with calls: green is read, red is refused and never run.

    Raises ValueError for a text that is not an expression of Python.

    Example: `calling.syntax("[calc(x=2 + 5)]")`
    """
    try:
        root = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"a tree needs an expression of Python; got {text!r:.80}: "
                         f"{error.msg}") from error
    rows = list(_rows_of(root, depth=0, label=""))
    drawing, lasts = Drawing(f"What the reader sees in {text:.60}"), {}
    for i, (depth, label, words, is_fine) in enumerate(rows):
        y = 0.36 * i
        probe = Drawing("").cell(words, (0.0, y))
        name = drawing.cell(words, (0.5 + 0.55 * depth + probe.width / 2, y),
                            color=_FINE if is_fine else _REFUSED)
        if label:
            drawing.note(label, (name.right[0] + 0.12, y))
        if depth:
            parent = lasts[depth - 1]
            x = parent.left[0] + 0.15
            drawing.arrow((x, parent.bottom[1]), (x, y), (name.left[0], y), color="0.5",
                          has_head=False)
        lasts[depth] = name
    drawing.key({"read": _FINE, "refused": _REFUSED}, (0.5, 0.36 * len(rows) + 0.1))
    refused = [words for _, _, words, is_fine in rows if not is_fine]
    see = "The reader refuses: " + ", ".join(refused) if refused else "Everything can be read"
    return drawing.figure(f"{see}. Nothing is run.")


def _rows_of(
    node: ast.expr, *, depth: int, label: str
) -> Iterator[tuple[int, str, str, bool]]:
    """Yields (depth, what it is to its parent, words, whether it is read) of a node and below."""
    is_fine = isinstance(node, (ast.List, ast.Call, ast.Constant)[depth])
    if isinstance(node, ast.Call):
        is_fine = is_fine and isinstance(node.func, ast.Name) and not node.args
    yield depth, label, f"{type(node).__name__}   {ast.unparse(node):.60}", is_fine
    if isinstance(node, ast.List) and depth == 0:
        for i, each in enumerate(node.elts, 1):
            yield from _rows_of(each, depth=1, label=f"call {i}")
    elif isinstance(node, ast.Call) and depth == 1:
        for each in node.args:
            yield 2, "without a name", f"{type(each).__name__}   {ast.unparse(each):.60}", False
        for each in node.keywords:
            yield from _rows_of(each.value, depth=2, label=f"argument {each.arg}")
