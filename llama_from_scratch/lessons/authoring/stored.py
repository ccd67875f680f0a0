"""Compares what a cell shows with what is stored for it in the notebook.

Text must equal the stored text, except that numbers with a decimal point may differ in their last
digits, as they do between processors. Pictures are only counted, because another version of a
library draws another pixel. Warnings on stderr are not compared, so that a new deprecation
elsewhere does not break a lesson.

nbval uses the same rules, through `notebooks/conftest.py`.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

from llama_from_scratch.lessons.authoring.form import canonical_outputs, tags_of

IGNORED = "nbval-ignore-output"
"""The tag of a cell whose output differs from run to run."""

FLOAT = re.compile(r"(?<![\w.])[-+]?\d+\.\d*(?:e[-+]?\d+)?")
REL_TOL, ABS_TOL = 2e-3, 2e-4
"""A few times what other instruction sets change in a float32 result."""


def is_close(
    new: str, ref: str, *, rel_tol: float = REL_TOL, abs_tol: float = ABS_TOL
) -> bool:
    """Returns True if the texts differ at most in the last digits of their floats."""
    if FLOAT.sub("#", new) != FLOAT.sub("#", ref):
        return False
    pairs = zip(FLOAT.findall(new), FLOAT.findall(ref), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=rel_tol, abs_tol=abs_tol)
               for a, b in pairs)


def difference(cell: dict, before: dict) -> str:
    """Returns words for the first difference of a cell that was run from the same cell before.

    Returns "" if there is none, if `before` was never run, or if its output is not compared.
    """
    if before["execution_count"] is None or IGNORED in tags_of(before):
        return ""
    new, stored = (_compared(canonical_outputs(each)) for each in (cell, before))
    if len(new) != len(stored):
        last = _shown(max(new, stored, key=len)[-1])
        return f"{len(new)} outputs, {len(stored)} stored; the last is {last[:80]!r}"
    for now, then in zip(new, stored, strict=True):
        if set(now) != set(then):
            return f"{_listed(now)}, stored {_listed(then)}"
        for kind, text in now.items():
            if words := _difference(kind, text, then[kind]):
                return words
    return ""


def _compared(outputs: Sequence[dict]) -> list[dict[str, Any]]:
    """Returns what is compared of each output: texts by kind; the streams of a name in one.

    A kernel may send what a cell prints in several parts, with a picture between them.
    """
    parts: list[dict[str, Any]] = []
    printed: dict[str, str] | None = None
    for out in outputs:
        if out["output_type"] == "stream":
            if out["name"] == "stderr":
                continue
            if printed is None:
                printed = {"stdout": ""}
                parts.append(printed)
            printed["stdout"] += out["text"]
        elif out["output_type"] == "error":
            parts.append({"ename": out["ename"], "evalue": out["evalue"]})
        else:
            parts.append(dict(out["data"]))
    return parts


def _difference(kind: str, now: object, before: object) -> str:
    if kind.startswith("image/"):
        return ""
    is_text = kind in ("stdout", "evalue") or kind.startswith("text/")
    if not (is_text and isinstance(now, str) and isinstance(before, str)):
        return "" if now == before else f"{now!r:.80}, stored {before!r:.80}"
    if is_close(now, before):
        return ""
    lines = zip(now.splitlines(), before.splitlines(), strict=False)
    one, other = next(((a, b) for a, b in lines if not is_close(a, b)), (now, before))
    return f"{one[:80]!r}, stored {other[:80]!r}"


def _shown(part: dict[str, Any]) -> str:
    return "\n".join(f"{part[kind]}" for kind in sorted(part) if not kind.startswith("image/"))


def _listed(part: dict[str, Any]) -> str:
    return " and ".join(sorted(part)) or "nothing"
