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
import math
from collections.abc import Sequence
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
    """A question with a field for the guess; `keep` is its button, `words` shows its replies.

    Each kind of question defines what its field contains (`content`). It may also refuse an answer,
    and compare the guess with it in another way.
    """

    def __init__(self, name: str, text: str, *, field: ipywidgets.Widget) -> None:
        self.name, self.text, self.field = name, text, field
        self.keep = ipywidgets.Button(description=KEEP, layout={"width": "auto"})
        self.keep.on_click(lambda _: self.take())
        self.words = ipywidgets.HTML()
        self.guess: Any = now().guesses.get(name, {}).get("guess")
        label = ipywidgets.HTML(f"<b>Your guess:</b> {html.escape(text)}")
        super().__init__([label, field, ipywidgets.HBox([self.keep, self.words])])
        if self.guess is not None:
            self._say(f"You guessed: {guessing.shown(self.guess)}.")
        _asked[name] = self

    def content(self) -> Any:
        """Returns the guess in the field. Raises ValueError if the field does not contain one."""
        raise NotImplementedError

    def take(self) -> None:
        """Keeps the content of the field as the guess, or shows why it cannot be one."""
        try:
            self.guess = self.content()
        except ValueError as error:
            self._say(str(error))
            return
        note(lambda before: dataclasses.replace(
            before, guesses={**before.guesses, self.name: {"guess": self.guess}}))
        self._say(f"You guessed: {guessing.shown(self.guess)}. Now find out.")

    def refuse(self, answer: Any) -> None:
        """Raises ValueError if `answer` cannot be the answer to this question."""

    def judge(self, answer: Any, *, within: float | int) -> Any:
        """Prints how the guess compares with the answer, and notes it. Returns what to show."""
        verdict = guessing.judge(self.guess, answer, within=within)
        note(lambda before: dataclasses.replace(before, guesses={**before.guesses, self.name: {
            "guess": self.guess, "answer": answer, "surprise": verdict.surprise}}))
        print(f"{verdict.words}" + ("" if verdict.is_right
                                    else f" The answer: {guessing.shown(answer)}."))

    def _say(self, words: str) -> None:
        self.words.value = f'<div role="status">{html.escape(words)}</div>'

    def _repr_mimebundle_(self, **settings: Any) -> dict[str, Any]:
        still = {"text/plain": f"Your guess: {self.text} (run the cell to write it down)"}
        return super()._repr_mimebundle_(**settings) | still


class _Number(Question):
    def __init__(self, name: str, text: str) -> None:
        field = ipywidgets.Text(placeholder="such as 1,000 or 2^10 or 3/4 or 25 %",
                                continuous_update=False, layout={"width": "20em"})
        super().__init__(name, text, field=field)
        # at Enter, or when the field is left
        field.observe(lambda _: self.take(), names="value")

    def content(self) -> float | int:
        return guessing.parse(self.field.value)


class _Choice(Question):
    def __init__(self, name: str, text: str, options: Sequence[str]) -> None:
        self.options = tuple(options)
        super().__init__(name, text, field=ipywidgets.RadioButtons(
            options=self.options, value=None, layout={"width": "max-content"}))

    def content(self) -> str:
        if self.field.value is None:
            raise ValueError("choose an option first")
        return self.field.value

    def refuse(self, answer: Any) -> None:
        if answer not in self.options:
            raise ValueError(f"the answer to {self.name} must be one of {', '.join(self.options)}; "
                             f"got {answer!r}")


class _Words(Question):
    def __init__(self, name: str, text: str) -> None:
        super().__init__(name, text, field=ipywidgets.Textarea(
            placeholder="in your own words", rows=2, layout={"width": "min(36em, 100%)"}))

    def content(self) -> str:
        if not self.field.value.strip():
            raise ValueError("write a sentence first")
        return self.field.value.strip()

    def judge(self, answer: str, *, within: float | int) -> None:
        print(f"You wrote: {self.guess}\nOne answer: {answer}")


class _Sketch(Question):
    def __init__(
        self, name: str, text: str, *, x: Sequence[Any], low: float | int, high: float | int,
        labels: tuple[str, str], is_log: bool,
    ) -> None:
        self.x, self.labels, self.is_log = list(x), labels, is_log
        self.handles = [_handle(str(place), low=low, high=high, is_log=is_log) for place in x]
        super().__init__(name, text, field=ipywidgets.VBox([
            ipywidgets.HTML(f"Height: {html.escape(labels[1])}. Below: {html.escape(labels[0])}."),
            ipywidgets.HBox(self.handles, layout={"flex_flow": "row wrap"})]))

    def content(self) -> list[float]:
        return [handle.value for handle in self.handles]

    def judge(self, answer: Sequence[float | int], *, within: float | int) -> Any:
        import matplotlib.pyplot as plt

        super().judge(answer, within=within)
        places = range(len(self.x))
        fig, ax = plt.subplots()
        ax.plot(places, self.guess, "o--", color=ORANGE, label="your guess")
        ax.plot(places, answer, "o-", color=BLUE, label="the answer")
        ax.set_xticks(places, list(map(str, self.x)))
        ax.set(xlabel=self.labels[0], ylabel=self.labels[1], title=self.text,
               yscale="log" if self.is_log else "linear")
        ax.legend()
        plt.close(fig)
        return fig


def number(name: str, text: str) -> Question:
    """Returns a question with a field for a number; `text` describes the number, with its unit."""
    return _Number(name, text)


def choice(name: str, text: str, options: Sequence[str]) -> Question:
    """Returns a question with options; the answer that `compare` gets is one of them."""
    return _Choice(name, text, options)


def words(name: str, text: str) -> Question:
    """Returns a question for a guess in a sentence, which readers compare by themselves."""
    return _Words(name, text)


def sketch(
    name: str, text: str, *, x: Sequence[Any], low: float | int, high: float | int,
    labels: tuple[str, str] = ("x", "y"), is_log: bool = False,
) -> Question:
    """Returns a question whose answer is a curve: a handle at each x, between `low` and `high`.

    `labels`: the labels of both axes, with units. With `is_log`, equal steps of a handle multiply
    the height by equal factors, and the curves are drawn the same way. `compare` gets one number
    for each x.
    """
    if not 2 <= len(x) <= _N_HANDLES_MAX or not low < high:
        raise ValueError(f"a sketch must have 2 to {_N_HANDLES_MAX} places and low < high; got "
                         f"{len(x)} places, low={low}, high={high}")
    if is_log and low <= 0:
        raise ValueError(f"the heights of a logarithmic sketch must be above 0; got low={low}")
    return _Sketch(name, text, x=x, low=low, high=high, labels=labels, is_log=is_log)


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
    question.refuse(answer)
    if question.guess is None:
        print(f"answer {name}: {guessing.shown(answer)}")
        return None
    return question.judge(answer, within=within)


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


def _handle(
    place: str, *, low: float | int, high: float | int, is_log: bool
) -> ipywidgets.FloatSlider | ipywidgets.FloatLogSlider:
    look = {"description": place, "orientation": "vertical",
            "layout": {"height": "14em", "width": "4em"}}
    if is_log:
        least, most = math.log10(low), math.log10(high)
        return ipywidgets.FloatLogSlider(value=math.sqrt(low * high), min=least, max=most,
                                         step=(most - least) / 50, **look)
    return ipywidgets.FloatSlider(value=(low + high) / 2, min=low, max=high,
                                  step=(high - low) / 50, **look)
