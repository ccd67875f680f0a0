"""Asks for a guess before the answer, and compares them afterwards.

    predict.number("13.a", "the variance of the scores for K = 128")
    ...                                        # the cells that compute the answer
    predict.compare("13.a", 128, within=0.1)

A question is named by its chapter and a letter. It shows a field for the guess, but not the answer.
`compare` prints how far the guess was from the answer, or only the answer if there was no guess.
At the end of a chapter, `surprises` lists the guesses that were furthest off. Used in every
chapter.
"""

import dataclasses
import html
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets

from llama_from_scratch.lessons.figures.look import BLUE, ORANGE
from llama_from_scratch.lessons.learner import guessing
from llama_from_scratch.lessons.learner.remembering import note, now

KEEP = "This is my guess"
_N_HANDLES_MAX = 12

_asked: dict[str, "Question"] = {}
"""The questions of this kernel, by name."""


class Question(ipywidgets.VBox):
    """A question with a field for the guess; `keep` is its button, `words` shows its replies."""

    def __init__(
        self, name: str, text: str, *, field: ipywidgets.Widget, value: Callable[[], Any],
    ) -> None:
        self.name, self.text, self.field, self._value = name, text, field, value
        self.keep = ipywidgets.Button(description=KEEP, layout={"width": "auto"})
        self.keep.on_click(lambda _: self.take())
        self.words = ipywidgets.HTML()
        self.guess: Any = now().guesses.get(name, {}).get("guess")
        label = ipywidgets.HTML(f"<b>Your guess:</b> {html.escape(text)}")
        super().__init__([label, field, ipywidgets.HBox([self.keep, self.words])])
        if self.guess is not None:
            self._say(f"You guessed: {guessing.shown(self.guess)}.")
        _asked[name] = self

    def take(self) -> None:
        """Keeps the content of the field as the guess, or shows why it cannot be one."""
        try:
            self.guess = self._value()
        except ValueError as error:
            self._say(str(error))
            return
        note(lambda before: dataclasses.replace(
            before, guesses={**before.guesses, self.name: {"guess": self.guess}}))
        self._say(f"You guessed: {guessing.shown(self.guess)}. Now find out.")

    def _say(self, words: str) -> None:
        self.words.value = f'<div role="status">{html.escape(words)}</div>'

    def _repr_mimebundle_(self, **settings: Any) -> dict[str, Any]:
        still = {"text/plain": f"Your guess: {self.text} (run the cell to write it down)"}
        return super()._repr_mimebundle_(**settings) | still


def number(name: str, text: str) -> Question:
    """Returns a question with a field for a number; `text` describes the number, with its unit."""
    field = ipywidgets.Text(placeholder="such as 1,000 or 2^10 or 3/4 or 25 %",
                            continuous_update=False, layout={"width": "20em"})
    question = Question(name, text, field=field, value=lambda: guessing.parse(field.value))
    field.observe(lambda _: question.take(), names="value")  # at Enter, or when the field is left
    return question


def choice(name: str, text: str, options: Sequence[str]) -> Question:
    """Returns a question with options; the answer that `compare` gets is one of them."""
    field = ipywidgets.RadioButtons(options=list(options), value=None,
                                    layout={"width": "max-content"})

    def chosen() -> str:
        if field.value is None:
            raise ValueError("choose an option first")
        return field.value

    question = Question(name, text, field=field, value=chosen)
    question.options = tuple(options)
    return question


def words(name: str, text: str) -> Question:
    """Returns a question for a guess in a sentence, which readers compare by themselves."""
    field = ipywidgets.Textarea(placeholder="in your own words", rows=2,
                                layout={"width": "min(36em, 100%)"})

    def written() -> str:
        if not field.value.strip():
            raise ValueError("write a sentence first")
        return field.value.strip()

    question = Question(name, text, field=field, value=written)
    question.is_in_words = True
    return question


def sketch(
    name: str, text: str, *, x: Sequence[Any], low: float | int, high: float | int,
    labels: tuple[str, str] = ("x", "y"),
) -> Question:
    """Returns a question whose answer is a curve: a handle at each x, between `low` and `high`.

    `labels`: the labels of both axes, with units. `compare` gets one number for each x.
    """
    if not 2 <= len(x) <= _N_HANDLES_MAX or not low < high:
        raise ValueError(f"a sketch must have 2 to {_N_HANDLES_MAX} places and low < high; got "
                         f"{len(x)} places, low={low}, high={high}")
    handles = [ipywidgets.FloatSlider(
        value=(low + high) / 2, min=low, max=high, step=(high - low) / 50, description=str(place),
        orientation="vertical", layout={"height": "14em", "width": "4em"}) for place in x]
    field = ipywidgets.VBox([
        ipywidgets.HTML(f"Height: {html.escape(labels[1])}. Below: {html.escape(labels[0])}."),
        ipywidgets.HBox(handles, layout={"flex_flow": "row wrap"})])
    question = Question(name, text, field=field,
                        value=lambda: [handle.value for handle in handles])
    question.x, question.labels, question.handles = list(x), labels, handles
    return question


def compare(name: str, answer: Any, *, within: float | int = 0.1) -> Any:
    """Shows the answer to a question, and how the reader's guess compares with it.

    `answer`: a number, one of the options, a sentence, or the heights of a curve. `within`: how far
    a number may be off and still be right, as a part of the answer. Returns a figure if a curve was
    guessed. Raises ValueError for a question that was not asked in this kernel, or an answer that
    is not one of its options.
    """
    question = _asked.get(name)
    if question is None:
        raise ValueError(f"the question {name!r} was not asked yet; run the cell that asks it "
                         f"first. Asked so far: {', '.join(_asked) or 'nothing'}")
    if (options := getattr(question, "options", None)) and answer not in options:
        raise ValueError(f"the answer to {name} must be one of {', '.join(options)}; got "
                         f"{answer!r}")
    if question.guess is None:
        print(f"answer {name}: {guessing.shown(answer)}")
        return None
    if hasattr(question, "is_in_words"):
        print(f"You wrote: {question.guess}\nOne answer: {answer}")
        return None
    verdict = guessing.judge(question.guess, answer, within=within)
    note(lambda before: dataclasses.replace(before, guesses={**before.guesses, name: {
        "guess": question.guess, "answer": answer, "surprise": verdict.surprise}}))
    print(f"{verdict.words}" + ("" if verdict.is_right
                                else f" The answer: {guessing.shown(answer)}."))
    return _curves(question, answer) if hasattr(question, "x") else None


def surprises(chapter: str) -> None:
    """Prints the reader's guesses in a chapter, such as "13", the most surprising one first."""
    found = {name: guess for name, guess in now().guesses.items()
             if name.partition(".")[0] == chapter and "surprise" in guess}
    if not found:
        print("no guesses yet in this chapter")
        return
    ranked = sorted(found.items(), key=lambda item: -item[1]["surprise"])
    n_right = sum(guess["surprise"] == 0 for guess in found.values())
    print(f"{n_right} of {len(found)} guesses were right.")
    for name, guess in ranked:
        if guess["surprise"] > 0:
            text = _asked[name].text if name in _asked else "a question"
            print(f"  {name}  {text}: you guessed {guessing.shown(guess['guess'])}, it is "
                  f"{guessing.shown(guess['answer'])}")


def _curves(question: Question, answer: Sequence[float | int]) -> Any:
    import matplotlib.pyplot as plt

    places = range(len(question.x))
    fig, ax = plt.subplots()
    ax.plot(places, question.guess, "o--", color=ORANGE, label="your guess")
    ax.plot(places, answer, "o-", color=BLUE, label="the answer")
    ax.set_xticks(places, list(map(str, question.x)))
    ax.set(xlabel=question.labels[0], ylabel=question.labels[1], title=question.text)
    ax.legend()
    plt.close(fig)
    return fig
