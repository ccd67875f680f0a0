"""Prompts to learn from by reward, from the files that people have, and a reward from a file.

A line of a JSON file is one prompt. It may be a dialog in any form that `read_dialogs` knows, whose
last answer is left out, or just a prompt or a question. The reward function gets the whole entry,
because many files have next to the prompt what a right answer must contain.

Notebook 54.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llama_from_scratch.config import nearest, record
from llama_from_scratch.tokenizer.chat_format import Message
from llama_from_scratch.tune.dialogs import (
    FORMS,
    Dialog,
    entries,
    prompt_of,
    read_entry,
    values_of,
)
from llama_from_scratch.tune.policy.rewards import Reward
from llama_from_scratch.tune.running.python_file import module_of

EXAMPLE = '{"prompt": "What is 2 + 2?", "answer": "4"}'


@record
class RewardPrompt:
    """What is asked, and the entry of the file that it was read from."""

    asked: Dialog
    entry: Mapping[str, Any]


def read_prompts(path: str | Path) -> list[RewardPrompt]:
    """Returns the prompts of a file: JSON lines, or one JSON list.

    Raises ValueError for the first line that is no prompt, with the reason of each form, for a
    prompt without words, and if the file has none.
    """
    found = []
    for place, entry in entries(path):
        dialog = read_entry(entry, place, PROMPT_FORMS, needs="a prompt", example=EXAMPLE)
        messages = dialog.messages
        while messages and messages[-1].role == "assistant":
            messages = messages[:-1]
        if not messages or not messages[-1].content.strip():
            raise ValueError("a prompt ends with a message that has words and is not the "
                             f"assistant's; {place} has none. Add it, or leave the line out")
        found.append(RewardPrompt(asked=Dialog(messages=messages, tools=dialog.tools),
                                  entry=entry))
    return found


def _of_prompt(entry: Mapping[str, Any]) -> Dialog:
    [told] = values_of(entry, "prompt")
    return Dialog(messages=prompt_of(told))


def _of_question(entry: Mapping[str, Any]) -> Dialog:
    [told] = values_of(entry, "question")
    if not isinstance(told, str):
        raise ValueError(f"a question is a text; got {told!r:.80}")
    return Dialog(messages=(Message(role="user", content=told),))


PROMPT_FORMS: dict[str, Callable[[Mapping[str, Any]], Dialog]] = {
    "a prompt": _of_prompt, "a question": _of_question, **FORMS}
"""The forms of a prompt in a file, in the order in which they are tried."""


def reward_in(place: str) -> Reward:
    """Returns the function at FILE.py:FUNCTION; the file is run as a Python module.

    It is called as `reward(entry, text, is_finished)`, with the entry of the prompt's line.
    Raises ValueError if the file is missing or fails, or has no such function, or the function
    cannot be called with three arguments.
    """
    file, colon, name = place.rpartition(":")
    if not colon or not file or not name:
        raise ValueError(f"a reward is written as FILE.py:FUNCTION; got {place!r}. Give the name "
                         "of the function after a colon")
    if not Path(file).is_file():
        raise ValueError(f"a reward is a function of a Python file; there is no file at {file}. "
                         "Check the path")
    module = module_of(Path(file), what="a file with a reward")
    found = getattr(module, name, None)
    if not callable(found):
        names = [each for each, value in vars(module).items()
                 if callable(value) and not each.startswith("_")]
        raise ValueError(f"the reward is a function of the file; {file} has none called {name!r}; "
                         f"{nearest(name, names) if names else 'it has no function at all'}")
    try:
        inspect.signature(found).bind({}, "", True)
    except TypeError as error:
        raise ValueError("a reward is called with the prompt's entry, the answer's text and "
                         f"whether it was finished; {name} in {file} cannot be: {error}. Write "
                         f"def {name}(entry, text, is_finished)") from error
    return lambda prompt, text, is_finished: found(prompt.entry, text, is_finished)
