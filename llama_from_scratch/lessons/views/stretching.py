"""Which needles a stretched model finds: choose the way and the factor.

Used by the chapter on long contexts (25).
"""

import copy
from collections.abc import Sequence

from matplotlib.figure import Figure

from llama_from_scratch.config import RopeScaling
from llama_from_scratch.lessons.figures import stretching
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train.long_context import stretch, theta_for
from llama_from_scratch.train.recall import needle_map

WAYS = ("divide all frequencies", "raise the base", "Llama 3.1's scaling")


def stretched(
    model: Llama, *, trained: int, lengths: Sequence[int] = (64, 128, 256, 512),
    factors: Sequence[int] = (1, 2, 4, 8, 16, 32), n_texts: int = 25,
) -> Explorer:
    """Returns a widget: needles that a copy of `model` finds, stretched by a way and a factor.

    `model`: has learned the task of `train.recall` from texts of `trained` tokens. It stays as it
    is. `factors`: those that can be chosen.
    """
    known: dict[tuple[str, int], list[list[float]]] = {}

    def draw(way: str, factor: int) -> Figure:
        if (way, factor) not in known:
            known[way, factor] = needle_map(
                stretched_by(model, way, float(factor), trained=trained,
                             max_seq_len=max(lengths)), lengths, n_texts=n_texts)
        return stretched_frame(known[way, factor], way=way, factor=factor, lengths=lengths,
                               trained=trained)

    return explore(draw, title="Which needles does it find?",
                   controls={"way": [*WAYS], "factor": {f"{f}": f for f in factors}},
                   labels={"factor": "factor of the stretching"}, start={"factor": 8})


def stretched_by(
    model: Llama, way: str, factor: float, *, trained: int, max_seq_len: int
) -> Llama:
    """Returns a copy of a model, stretched in one of `WAYS`. Raises ValueError for another."""
    config, longer = model.config, copy.deepcopy(model)
    options = {
        WAYS[0]: {"linear_factor": factor},
        WAYS[1]: {"theta": theta_for(factor, theta=config.rope_theta, head_dim=config.head_dim)},
        WAYS[2]: {"scaling": RopeScaling(factor=factor, low_freq_factor=1.0, high_freq_factor=4.0,
                                         original_max_seq_len=trained)}}
    if way not in options:
        raise ValueError(f"a model is stretched in one of {', '.join(WAYS)}; got {way!r}")
    stretch(longer, max_seq_len=max(max_seq_len, config.max_seq_len), **options[way])
    return longer


def stretched_frame(
    found: Sequence[Sequence[float]], *, way: str, factor: int, lengths: Sequence[int],
    trained: int
) -> Figure:
    """Draws the map of needles of one way and factor."""
    fig = stretching.needles({f"{way}, factor {factor}": found}, lengths=lengths, trained=trained)
    fig.set_size_inches(7, 0.9 + 0.55 * len(lengths))
    return fig
