"""Preferences: a prompt, the answer that was chosen, the answer that was rejected, and by how much.

A line of a JSON file is one pair. There are two common forms: a prompt with both answers, and two
whole dialogs with a common beginning. A pair shows only which answer is better, so two equal
answers teach nothing and are refused.

Notebooks 52 and 53. Source: Llama 2, arXiv:2307.09288, section 3.2.1.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from llama_from_scratch.config import record
from llama_from_scratch.tokenizer.chat_format import Message, Tool
from llama_from_scratch.tune.dialogs import (
    Dialog,
    answer_of,
    entries,
    list_of,
    prompt_of,
    read_entry,
    tool_of,
    values_of,
)


@record
class Preference:
    """Two answers to one prompt, of which `chosen` is better than `rejected`.

    Each answer is one message of the assistant, or several messages of which the first and the last
    are the assistant's. `margin`: by how much the reward of the chosen answer has to be larger, 0
    or more. Llama 2 took it from the grade of the preference; Llama 3 has none. `tools`: the tools
    that the dialog may call.
    """

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    margin: float = 0.0
    tools: tuple[Tool, ...] = ()

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("both answers of a pair have a prompt; got none. Give the messages "
                             "before the answers")
        for name in ("chosen", "rejected"):
            roles = [message.role for message in getattr(self, name)]
            if not roles or roles[0] != "assistant" or roles[-1] != "assistant":
                raise ValueError(f"the {name} answer of a pair begins and ends with a message of "
                                 f"the assistant; got the roles {', '.join(roles) or 'of none'}")
        if self.chosen == self.rejected:
            raise ValueError("the two answers of a pair must differ; got twice "
                             f"{self.chosen[-1].content!r:.80}. Leave the pair out")
        if isinstance(self.margin, bool) or not isinstance(self.margin, int | float) or not (
                0 <= self.margin < math.inf):
            raise ValueError("the margin of a pair is a finite number of at least 0; got "
                             f"{self.margin!r:.40}. If it is below 0, the other answer is better")

    @property
    def dialogs(self) -> tuple[Dialog, Dialog]:
        """The chosen dialog and the rejected one. In each, only the answer is learned."""
        said = tuple(i for i, message in enumerate(self.prompt) if message.role == "assistant")
        chosen, rejected = (Dialog(messages=(*self.prompt, *answer), tools=self.tools,
                                   unlearned=said) for answer in (self.chosen, self.rejected))
        return chosen, rejected


def preferred(
    user: str, chosen: str, rejected: str, *, system: str | None = None, margin: float = 0.0
) -> Preference:
    """Returns the pair of one request and its two answers."""
    lead = () if system is None else (Message(role="system", content=system),)
    return Preference(prompt=(*lead, Message(role="user", content=user)),
                      chosen=(Message(role="assistant", content=chosen),),
                      rejected=(Message(role="assistant", content=rejected),), margin=margin)


def pairs_from(
    prompt: Sequence[Message], answers: Sequence[str], scores: Sequence[float | int], *,
    n_most: int, seed: int = 0, has_margins: bool = False,
) -> list[Preference]:
    """Returns at most `n_most` pairs of answers with different scores, drawn from all of them.

    It is empty if all scores are equal. `has_margins`: the margin is the difference of the scores.
    Raises ValueError unless each answer has a score that is a number, and for `n_most` below 1.
    """
    if len(answers) != len(scores) or any(math.isnan(score) for score in scores):
        raise ValueError(f"each answer has a score that is a number; got {len(answers)} answers "
                         f"and the scores {list(scores)[:5]}")
    if n_most < 1:
        raise ValueError(f"n_most, the number of pairs, is at least 1; got {n_most}")
    said = [Message(role="assistant", content=answer) for answer in answers]
    found = [Preference(prompt=tuple(prompt), chosen=(said[i],), rejected=(said[j],),
                        margin=float(scores[i] - scores[j]) if has_margins else 0.0)
             for i in range(len(said)) for j in range(len(said))
             if scores[i] > scores[j] and answers[i] != answers[j]]
    return Random(seed).sample(found, min(n_most, len(found)))


def read_pairs(path: str | Path) -> list[Preference]:
    """Returns the pairs of a file: JSON lines, or one JSON list.

    An entry may have a "margin" and "tools". Raises ValueError for the first line that is no pair,
    with the reason of each form, and if the file has none.
    """
    return [read_entry(entry, place, FORMS, needs="a pair", example=EXAMPLE)
            for place, entry in entries(path)]


EXAMPLE = '{"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"}'


def _of_prompt(entry: Mapping[str, Any]) -> Preference:
    told, chosen, rejected = values_of(entry, "prompt", "chosen", "rejected")
    prompt = prompt_of(told)

    def answer(name: str, told: Any) -> tuple[Message, ...]:
        messages = answer_of(told, name)
        # Some files repeat the prompt in both answers.
        return messages[len(prompt):] if messages[: len(prompt)] == prompt else messages

    return _pair(entry, prompt, answer("chosen", chosen), answer("rejected", rejected))


def _of_dialogs(entry: Mapping[str, Any]) -> Preference:
    chosen, rejected = (answer_of(list_of(told, name), name) for told, name in zip(
        values_of(entry, "chosen", "rejected"), ("chosen", "rejected"), strict=True))
    if chosen == rejected:
        raise ValueError("the two dialogs of a pair must differ in their answers; got the same "
                         f"{len(chosen)} messages twice. Leave the pair out")
    n_shared = next((i for i, (one, other) in enumerate(zip(chosen, rejected, strict=False))
                     if one != other), min(len(chosen), len(rejected)))
    if n_shared == 0:
        raise ValueError("two dialogs without a prompt have a common beginning; got "
                         f"{_shown(chosen)} and {_shown(rejected)}")
    return _pair(entry, chosen[:n_shared], chosen[n_shared:], rejected[n_shared:])


def _shown(messages: Sequence[Message]) -> str:
    return repr(messages[0].content)[:60] if messages else "no message"


def _pair(
    entry: Mapping[str, Any], prompt: tuple[Message, ...], chosen: tuple[Message, ...],
    rejected: tuple[Message, ...],
) -> Preference:
    tools = tuple(tool_of(each) for each in list_of(entry.get("tools") or [], "tools"))
    return Preference(prompt=prompt, chosen=chosen, rejected=rejected, tools=tools,
                      margin=entry.get("margin", 0.0))


FORMS: dict[str, Callable[[Mapping[str, Any]], Preference]] = {
    "a prompt with a chosen and a rejected answer": _of_prompt,
    "two dialogs with a common beginning": _of_dialogs,
}
"""The forms of a pair in a file, in the order in which they are tried."""
