"""Asks several models the same question, and judges their answers.

Used by the chapter on supervised fine-tuning (50).
"""

import textwrap
from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.look import GREEN, RED
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.chat_format import ChatFormat, ChatTemplate
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.tune import evals
from llama_from_scratch.tune.world.checking import RIGHT, check
from llama_from_scratch.tune.world.instructions import INSTRUCTIONS, Request, obeying
from llama_from_scratch.tune.world.scenes import KINDS, Person, fact, question_about
from llama_from_scratch.tune.world.words import COLORS, NAMES, PLACES, THINGS

_NONE, _FIRST_MARK, _LAST_MARK = "none", "moon", "star"
_WIDTH_LETTERS, _LINE = 78, 0.29


def ask_assistants(
    models: Mapping[str, Llama], tokenizer: AnyTokenizer, format: ChatFormat | ChatTemplate
) -> Explorer:
    """Returns a widget: a scene, a question with up to two instructions, and all answers.

    `models`: by name; they share the tokenizer and the format.
    """
    def draw(name: str, thing: str, color: str, place: str, kind: str, first: str, second: str
             ) -> Figure:
        told = tuple(each for each in dict.fromkeys((first, second)) if each != _NONE)
        person = Person(name=name, thing=thing, color=color, place=place, taste="honey")
        task = task_of(person, kind, told)
        answers = {model_name: evals.ask(model, tokenizer, [f" {task.user}"], format)[0]
                   for model_name, model in models.items()}
        return assistants_frame(task, answers)

    instructions = [_NONE, *INSTRUCTIONS]
    return explore(
        draw, title="Ask the assistant, and judge it",
        controls={"name": list(NAMES), "thing": list(THINGS), "color": list(COLORS),
                  "place": list(PLACES), "kind": list(KINDS), "first": instructions,
                  "second": instructions},
        labels={"name": "person", "kind": "asks", "first": "instruction",
                "second": "second instruction"},
        start={"kind": "where", "first": "three"})


def task_of(person: Person, kind: str, instructions: tuple[str, ...]) -> Request:
    """Returns a task about one person, with the facts in a fixed order."""
    marks = dict(first_mark=_FIRST_MARK, last_mark=_LAST_MARK)
    told = [INSTRUCTIONS[name].format(mark=_FIRST_MARK if name == "begin" else _LAST_MARK)
            for name in instructions]
    user = " ".join([*(fact(each, person) for each in KINDS), question_about(kind, person), *told])
    return Request(user=user, kind=kind, person=person, instructions=instructions, **marks,
                answer=obeying(kind, person, instructions, **marks))


def assistants_frame(task: Request, answers: Mapping[str, str]) -> Figure:
    """Draws the request, and for each model its answer with a verdict on each demand."""
    lines = [("user", line, "black") for line in textwrap.wrap(task.user, _WIDTH_LETTERS)]
    words = []
    for name, text in answers.items():
        verdicts = check(text, task)
        shown = textwrap.wrap(text, _WIDTH_LETTERS) or ["(nothing)"]
        lines += [("", "", "black"), *((name, line, "black") for line in shown)]
        lines += [(name, f"{'✓' if is_met else '✗'} {demand}", GREEN if is_met else RED)
                  for demand, is_met in verdicts.items()]
        words.append(f"{name}: “{text}”; " + ", ".join(
            f"{'right' if demand == RIGHT else demand}: {'yes' if is_met else 'no'}"
            for demand, is_met in verdicts.items()))
    fig, ax = plt.subplots(figsize=(9, 0.3 + _LINE * len(lines)), layout="none")
    fig.subplots_adjust(left=0, right=1, bottom=0, top=1)
    ax.set(xlim=(0, 1), ylim=(len(lines) + 0.2, -0.6))
    ax.axis("off")
    speaker = None
    for y, (name, line, color) in enumerate(lines):
        if name and name != speaker:
            ax.text(0.01, y, name, weight="bold", fontsize=12, va="center", parse_math=False)
        speaker = name or speaker
        ax.text(0.14, y, line, color=color, fontsize=12, va="center", parse_math=False)
    fig.set_label(f"user: “{task.user}” " + " ".join(words))
    return fig
