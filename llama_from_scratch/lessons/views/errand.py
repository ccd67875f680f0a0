"""Gives a model an errand with tools, and shows the exchange message by message.

Used by the chapter on tools (55).
"""

from collections.abc import Sequence
from random import Random

from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures import calling
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.chat_format import ChatFormat, Message
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.tune import agent
from llama_from_scratch.tune.agents import guards
from llama_from_scratch.tune.world.errands import DEEPER, KINDS, Errand, TownTools, asked, judge
from llama_from_scratch.tune.world.errands import errand as new_errand

_MAX_MESSAGES = 10


def do_errand(model: Llama, tokenizer: AnyTokenizer, format: ChatFormat) -> Explorer:
    """Returns a widget: a kind of errand with unseen names, and the exchange up to a message.

    Each errand is run once, when it is first chosen.
    """
    known: dict[tuple[str, int], tuple[Errand, Sequence[Message], bool]] = {}

    def draw(kind: str, seed: int, messages: int) -> Figure:
        if (kind, seed) not in known:
            task = new_errand(Random(seed), "test", kind)
            town = TownTools(task.town)
            trace = agent.run(model, tokenizer, task=asked(task), tools=town.tools(),
                              format=format, gate=guards.allow, lists_tools=False)
            known[kind, seed] = task, trace.messages, judge(task, trace, town.sent).is_done
        task, dialog, is_done = known[kind, seed]
        return do_errand_frame(task, dialog, is_done=is_done, n_shown=messages)

    return explore(draw, title="An errand, message by message",
                   controls={"kind": [*KINDS, *DEEPER], "seed": (0, 19),
                             "messages": (1, _MAX_MESSAGES)},
                   labels={"kind": "kind of errand", "seed": "people", "messages": "show messages"},
                   start={"kind": "chain", "messages": _MAX_MESSAGES})


def do_errand_frame(
    task: Errand, dialog: Sequence[Message], *, is_done: bool, n_shown: int
) -> Figure:
    """Draws the first messages of a run, and says at its end whether the errand is done."""
    spoken = [message for message in dialog if message.role != "system"]
    is_whole = n_shown >= len(spoken)
    verdict = (f"done: {task.answer}" if is_done else f"wrong, should be: {task.answer}"
               ) if is_whole else f"message {n_shown} of {len(spoken)}"
    return calling.exchange(spoken, title=f"{task.kind}, {verdict}", n_shown=n_shown)
