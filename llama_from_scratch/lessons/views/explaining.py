"""What several methods say about the sentences that a model read, one answer at a time.

Used by the chapter on explanations (59).
"""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from llama_from_scratch.config import record
from llama_from_scratch.lessons.figures.explaining import parts
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore


@record
class ExplainedAnswer:
    """An answer, the sentences before it, which of them is the cause, and what methods say.

    `by_method`: for each method one number for each sentence.
    """

    question: str
    answer: str
    sentences: tuple[str, ...]
    cause: int
    by_method: Mapping[str, Sequence[float]]


def explain_answer(explained: Sequence[ExplainedAnswer]) -> Explorer:
    """Returns a widget: an answer, and whether the cause is shown."""
    def draw(number: int, shows_cause: bool) -> Figure:
        return explain_answer_frame(explained[number - 1], shows_cause=shows_cause)

    return explore(draw, title="Which sentence made the answer?",
                   controls={"number": (1, len(explained)), "shows_cause": False},
                   labels={"number": "answer", "shows_cause": "show the cause"})


def explain_answer_frame(one: ExplainedAnswer, *, shows_cause: bool) -> Figure:
    """Draws what each method says about each sentence of one answer."""
    fig = parts(one.sentences, one.by_method, cause=one.cause if shows_cause else None)
    fig.axes[0].set_xlabel(f"{one.question} {one.answer}")
    right = [name for name, values in one.by_method.items()
             if max(range(len(values)), key=values.__getitem__) == one.cause]
    told = f" {len(right)} of {len(one.by_method)} methods find it: {', '.join(right)}."
    fig.set_label(f"{one.question} {one.answer} {fig.get_label()}{told if shows_cause else ''}")
    return fig
