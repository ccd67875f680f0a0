"""Returns a notebook as text, for `git diff`.

It loads only the standard library, so that a diff is fast.
"""

import json
from pathlib import Path

from llama_from_scratch.files import digest
from llama_from_scratch.lessons.authoring.form import tags_of


def show(path: Path) -> str:
    """Returns the notebook as text for `git diff`.

    The text has sources, text outputs, and one short line for each picture.
    """
    lines = []
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"], start=1):
        tags = " ".join(tags_of(cell))
        lines.append(f"--- {number} {cell['cell_type']}{' ' + tags if tags else ''}")
        lines.append(_joined(cell["source"]))
        for out in cell.get("outputs", ()):
            if "ename" in out:
                lines.append(f"=> {out['ename']}: {_joined(out['evalue'])}")
            elif "text" in out:
                lines.append(f"=> {_joined(out['text'])}")
            for kind, value in sorted(out.get("data", {}).items()):
                text = (_joined(value) if isinstance(value, str | list)
                        else json.dumps(value, sort_keys=True))
                short = digest(text)[:8]
                lines.append(f"=> {text}" if kind.startswith("text/")
                             else f"=> <{kind} {len(text)} chars {short}>")
    return "\n".join(line.rstrip("\n") for line in lines) + "\n"


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)
