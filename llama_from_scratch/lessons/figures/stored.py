"""Drawings of checkpoints: one parameter's names in each format, and the bytes of a file.

Notebook 18.
"""

import json
from pathlib import Path

from matplotlib.figure import Figure

from llama_from_scratch.checkpoint import names
from llama_from_scratch.checkpoint.safetensors_file import entries
from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.lessons.figures.flow import Drawing
from llama_from_scratch.lessons.figures.look import TINTS

_CUTS = {None: "whole", 0: "rows cut", 1: "columns cut"}
_MAX_DRAWN = 5


def parameters(config: LlamaConfig) -> Figure:
    """Draws the names of a model's parameters in each format, for the first layer only.

    The names come from the table that this library's readers and writers use. Parameters whose rows
    are in another order in Hugging Face's files are colored.

    Example: `stored.parameters(model.config)`
    """
    formats = (names.HUGGING_FACE, names.META, names.GGUF)
    lefts, widths = (0.0, 2.0, 4.05, 5.75, 7.15), (1.92, 1.97, 1.62, 1.32, 1.1)
    heads = ("ours", *(format.name for format in formats), "Meta's shards")
    drawing = Drawing("One parameter, four names: which tensor becomes which")
    for left, head in zip(lefts, heads, strict=True):
        drawing.note(head, (left + 0.05, 0.0))
    y, n_drawn = 0.02, 0
    for layer, rows in names.groups(names.shapes(config), config.n_layers):
        if layer not in (None, 0):
            continue
        if layer == 0:
            y += 0.33
            prefixes = (names.OF_LAYER, *(format.of_layer for format in formats))
            for left, prefix in zip(lefts, prefixes, strict=False):
                drawing.note(f"{prefix.format(i=0)}…", (left + 0.05, y + 0.02))
        for row in rows.values():
            y += 0.32
            n_drawn += 1
            texts = [row.ours, *(row.theirs[f].name if f in row.theirs else "–" for f in formats)]
            texts = [text.removesuffix(".weight") for text in texts] + [_CUTS[row.cut]]
            for column, (left, width, text) in enumerate(zip(lefts, widths, texts, strict=True)):
                is_reordered = (0 < column <= len(formats) and formats[column - 1] in row.theirs
                                and row.theirs[formats[column - 1]].has_halves)
                drawing.cell(text, (left + width / 2, y), width=width,
                             color=TINTS[0] if not column else TINTS[1] if is_reordered
                             else "white")
    drawing.key({"our parameter": TINTS[0], "rows of each head in another order": TINTS[1]},
                (0.0, y + 0.42))
    drawing.note("all names end in .weight", (5.75, y + 0.42))
    return drawing.figure(
        f"Each of these {n_drawn} tensors is one parameter with four names. Only wq and wk are "
        "also stored in another order, and only in Hugging Face's files.")


def file_bytes(path: str | Path) -> Figure:
    """Draws the layout of a real safetensors file: length of the header, header and tensors.

    Only the first tensors and the last one are drawn. Raises ValueError for a file that is not a
    complete safetensors file.

    Example: `stored.file_bytes(folder / "model.safetensors")`
    """
    path = Path(path)
    found = sorted(entries(path).items(), key=lambda item: item[1].start)
    with path.open("rb") as file:
        lead = file.read(8)
        n_header = int.from_bytes(lead, "little")
        header = json.loads(file.read(n_header))
    drawing = Drawing(f"{path.name}: {path.stat().st_size:,} bytes, nothing hidden")
    middle, width = 4.1, 5.2
    drawing.note("from byte", (1.35, 0.0), align="right")
    drawing.note("0", (1.35, 0.38), align="right")
    drawing.cell(f"{lead.hex(' ').upper()}  =  the number {n_header:,}", (middle, 0.38),
                 width=width, height=0.36, color=TINTS[2])
    drawing.note("length of the header", (middle + width / 2 + 0.12, 0.38))
    first, about = found[0][0], header[found[0][0]]
    entry = json.dumps(about).replace('", "', '", "')
    lines = (f'{{ … "{first}":', entry, "… }")
    head = drawing.cell("\n".join(lines), (middle, 1.02), width=width, height=0.78,
                        color=TINTS[1])
    drawing.note("8", (1.35, 0.75), align="right")
    drawing.note("header in JSON:\nname, type, shape\nand place of each", (head.right[0] + 0.12,
                                                                         1.02))
    drawn = found[:_MAX_DRAWN] + (found[-1:] if len(found) > _MAX_DRAWN else [])
    y = 1.42
    for number, (name, at) in enumerate(drawn):
        if number == _MAX_DRAWN and len(found) > _MAX_DRAWN + 1:
            drawing.note(f"… {len(found) - _MAX_DRAWN - 1} more tensors", (middle, y + 0.18),
                         align="center")
            y += 0.34
        y += 0.37
        shape = " × ".join(f"{size:,}" for size in at.shape)
        tensor = drawing.cell(f"{name}", (middle, y - 0.15), width=width, height=0.33,
                              color=TINTS[0])
        drawing.note(f"{at.start:,}", (1.35, y - 0.15), align="right")
        drawing.note(f"{shape}, {str(at.dtype).removeprefix('torch.')}",
                     (tensor.right[0] + 0.12, y - 0.15))
    drawing.note(f"{path.stat().st_size:,}", (1.35, y + 0.14), align="right")
    drawing.note("end of the file", (middle, y + 0.14), align="center")
    return drawing.figure(
        f"Places in the header count from byte {8 + n_header:,}, where the header ends. So a "
        "program can find one tensor without reading the others.")
