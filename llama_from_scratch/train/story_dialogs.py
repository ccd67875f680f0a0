"""Dialogs made from stories: a user asks, and the assistant tells a story in the story's own words.

A rule finds what a story is about and where its introduction ends, so no dialog is written by hand,
and every generation's chat format can be learned from the same texts.

Notebooks 18 and 19.
"""

import random
import re
from collections.abc import Iterator, Sequence

from llama_from_scratch.tokenizer.chat_format import Message

THEMES = {
    "tooth": "a loose tooth", "moon": "the moon", "bird": "a bird", "umbrella": "an umbrella",
    "tracks": "strange tracks", "kite": "a kite", "promise": "a promise",
    "sound": "a sound at night",
}  # fmt: skip
"""The themes of the stories: a word that occurs in them, and how a user asks for it."""


def dialogs(stories: Sequence[str], *, seed: int = 0) -> Iterator[list[Message]]:
    """Yields a finished dialog per story, in which all words of the assistant are the story's own.

    Some users ask for a story about its theme. Some ask for any story, and the system's message
    names the theme. The assistant then tells the story without its introduction. Other users give
    the opening, and the assistant tells the rest. Some dialogs pause in the middle until the user
    says to go on, and some have another story at their end. Every story needs a theme, see
    `theme_of`.
    """
    pick = random.Random(seed)
    for story, following in zip(stories, [*stories[1:], stories[0]], strict=True):
        theme, kind = THEMES[theme_of(story)], pick.random()
        told, lead = _without_introduction(story), []
        if pick.random() < 0.3:
            lead = [Message(role="system", content="You tell stories.")]
        if kind < 0.2:
            opening, told = _cut(story)
            dialog = [*lead, Message(role="user", content=f"Go on: {opening}")]
        elif kind < 0.6:
            dialog = [Message(role="system", content=f"You tell stories about {theme}."),
                      Message(role="user", content="Tell me a story.")]
        else:
            dialog = [*lead, Message(role="user", content=f"Tell me a story about {theme}.")]
        dialog += _telling(told, is_in_two=pick.random() < 0.4)
        if pick.random() < 0.2:
            another = f"Another one, about {THEMES[theme_of(following)]}."
            dialog.append(Message(role="user", content=another))
            dialog += _telling(_without_introduction(following), is_in_two=False)
        yield dialog


def theme_of(story: str) -> str | None:
    """Returns the first word of THEMES that occurs at least three times, or None."""
    return next((word for word in THEMES if len(re.findall(rf"\b{word}\b", story)) >= 3), None)


def _without_introduction(story: str) -> str:
    """Returns the story without its introduction, from a sentence that can be understood alone.

    That is the last sentence that does not begin with a pronoun, at or before the first mention of
    the theme. Introductions are alike whatever follows. Without them, the first words of an answer
    depend on the request.
    """
    first = re.search(rf"\b{theme_of(story)}\b", story).start()
    begins = [found.end() for found in re.finditer(r'[.!?]"?\s+', story[:first])]
    begins = [i for i in begins
              if not re.match(r"(He|She|It|They|His|Her|Their)\b|[a-z\"]", story[i:])]
    return story[begins[-1] :] if begins else story


def _cut(story: str) -> tuple[str, str]:
    """Returns the first sentence, and the text after it."""
    found = re.match(r".+?[.!?]\"?(?=\s)", story, re.DOTALL)
    return (found[0], story[found.end() :].strip()) if found else (story, story)


def _telling(text: str, *, is_in_two: bool) -> list[Message]:
    """Returns the assistant's message, or two messages with the user's "Go on." between them."""
    ends = [found.start() for found in re.finditer("\n", text)]
    if not is_in_two or not ends:
        return [Message(role="assistant", content=text)]
    middle = min(ends, key=lambda i: abs(i - len(text) // 2))
    return [Message(role="assistant", content=text[:middle]),
            Message(role="user", content="Go on."),
            Message(role="assistant", content=text[middle + 1 :])]
