"""Draws documents packed into windows, with the targets one token later.

Notebook 17.
"""

from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.boxes import letters
from llama_from_scratch.lessons.figures.flow import Drawing, Node
from llama_from_scratch.lessons.figures.look import TINTS
from llama_from_scratch.train.data import IGNORE, Packed

_SPECIAL = "#C8C8C8"


def windows(data: Packed, *, seq_len: int = 10, n_windows: int = 2) -> Figure:
    """Draws the first windows of a stream: inputs, targets, and positions that restart.

    Each document has its own color. A dash is a target that does not count.

    Example: `packing.windows(Packed(["the cat sat.", "a dog ran and the cat too."], tokenizer))`
    """
    batch = next(data.in_order(batch_size=n_windows, seq_len=seq_len))
    tokenizer = data.tokenizer
    names = {tokenizer.bos_id: "begin", tokenizer.eos_id: "end"}

    def word(token: int) -> str:
        return "–" if token == IGNORE else names.get(token) or letters(
            tokenizer.decode_bytes([token]))

    drawing = Drawing("Documents in one stream, cut into windows of one length")
    pitch, n_documents, y = 0.64, 0, 0.0
    for row in range(batch.ids.shape[0]):
        ids, targets, documents, positions = (
            x[row].tolist() for x in (batch.ids, batch.targets, batch.documents, batch.positions))
        if row and ids[0] == tokenizer.bos_id:
            n_documents += 1   # each window numbers its documents from 0
        drawing.note(f"window {row + 1}", (0.05, y))
        drawn: dict[tuple[str, int], Node] = {}
        for name, line, values in (("inputs", 0.0, ids), ("targets", 0.62, targets)):
            drawing.note(name, (1.0, y + line))
            for i, value in enumerate(values):
                tint = TINTS[(n_documents + documents[i]) % len(TINTS)]
                color = _SPECIAL if value in names else "white" if value == IGNORE else tint
                drawn[name, i] = drawing.cell(word(value), (2.0 + pitch * i, y + line),
                                              width=pitch - 0.06, color=color)
        for i, target in enumerate(targets[:-1]):
            if target != IGNORE:
                drawing.arrow(drawn["inputs", i + 1], drawn["targets", i])
        drawing.note("positions", (1.0, y + 0.96))
        for i, position in enumerate(positions):
            drawing.note(f"{position}", (2.0 + pitch * i, y + 0.96), align="center")
        n_documents += documents[-1]
        y += 1.45
    shown = {f"document {i + 1}": TINTS[i % len(TINTS)] for i in range(n_documents + 1)}
    drawing.key(shown | {"begin or end of a text": _SPECIAL}, (1.7, y - 0.15))
    n_targets = batch.n_targets
    return drawing.figure(
        f"Every target is the input one place to its right. {n_targets} of {batch.ids.numel()} "
        "inputs have a target; the end of a document has none, and then positions restart.")
