"""A drawing of what moves between a file and the model: names, and rows that change their order.

Notebook 18.
"""

from matplotlib.figure import Figure

from llama_from_scratch.checkpoint.names import HUGGING_FACE, OF_LAYER, Format
from llama_from_scratch.checkpoint.translation import translation
from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.lessons.figures.flow import STEPS, Drawing
from llama_from_scratch.lessons.figures.look import TINTS

_PITCH = 0.36


def moves(config: LlamaConfig, *, format: Format = HUGGING_FACE, layer: int = 0) -> Figure:
    """The tensors of one layer, from a file of a format to the parameters of the model.

    The names and shapes are those of the library's table. Raises ValueError if the config has no
    such layer.

    Example: `parameters.moves(family.config("llama-3.1-8b"))`
    """
    if not 0 <= layer < config.n_layers:
        raise ValueError(f"this config has the layers 0 to {config.n_layers - 1}; got {layer}")
    how = translation(format, config)
    of_ours, of_theirs = OF_LAYER.format(i=layer), format.of_layer.format(i=layer)
    pieces = [piece for piece in how.pieces if piece.ours.startswith(of_ours)]
    drawing = Drawing(f"Layer {layer}: from a file of {format.name} to the model")
    drawing.note(f"{of_theirs}…", (1.25, -0.4), align="center")
    drawing.note(f"{of_ours}…", (6.2, -0.4), align="center")
    n_turned = 0
    for row, piece in enumerate(pieces):
        y, is_turned = _PITCH * row, not piece.keeps_order
        n_turned += is_turned
        color = STEPS["focus"] if is_turned else TINTS[4]
        theirs = drawing.cell(_short(piece.theirs, of_theirs), (1.25, y), width=2.3, color=color)
        ours = drawing.cell(_short(piece.ours, of_ours), (6.2, y), width=1.9, color=color)
        if is_turned:
            turned = drawing.cell(f"rows of {piece.n_heads} heads change places", (3.75, y),
                                  color=STEPS["choice"])
            drawing.arrow(theirs, turned)
            drawing.arrow(turned, ours)
        else:
            drawing.arrow(theirs, ours)
        drawing.note(" × ".join(f"{size:,}" for size in how.ours[piece.ours]), (7.3, y))
    order = (f"the rows of {n_turned} change their order" if n_turned
             else "all rows keep their order")
    return drawing.figure(f"All {len(pieces)} tensors of the layer have a name in the file and "
                          f"one in the model; {order}, and no number changes.")


def _short(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).removesuffix(".weight")
