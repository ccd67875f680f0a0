import re
from collections import Counter

import pytest

from llama_from_scratch.train import mini
from llama_from_scratch.train.story_dialogs import (
    THEMES,
    _without_introduction,
    dialogs,
    theme_of,
)


@pytest.fixture(scope="module")
def stories():
    return mini._stories()[0]


def test_the_assistant_says_nothing_but_stories_and_users_a_few_requests(stories):
    text = " ".join(" ".join(stories).split())
    asked = set()
    for dialog in dialogs(stories):
        roles = [message.role for message in dialog]
        assert roles[roles[0] == "system" :] == ["user", "assistant"] * (len(roles) // 2)
        for message in dialog:
            if message.role == "assistant":
                assert " ".join(message.content.split()) in text
            else:
                request = re.sub("(?<=about ).*|(?<=Go on: ).*", "...", message.content,
                                 flags=re.DOTALL)
                asked.add(request)
    assert asked == {
        "You tell stories.", "You tell stories about ...", "Tell me a story.",
        "Tell me a story about ...", "Go on.", "Go on: ...", "Another one, about ...",
    }


def test_the_story_that_is_told_is_about_what_was_asked_for(stories):
    n_asked = Counter()
    requests = ("Tell me a story about ", "You tell stories about ")
    for dialog in dialogs(stories):
        asked = [m.content for m in dialog[:2] if m.content.startswith(requests)]
        for word, words in THEMES.items():
            if asked and asked[0].endswith(f" about {words}."):
                assert word in " ".join(m.content for m in dialog[:5] if m.role == "assistant")
                n_asked[word] += 1
    assert n_asked.keys() == THEMES.keys() and n_asked.total() > len(stories) / 2


def test_a_dialog_tells_the_story_to_its_end_and_from_its_opening_if_the_user_gives_that(stories):
    n_whole = 0
    for story, dialog in zip(stories, dialogs(stories), strict=True):
        asked = next(m.content for m in dialog if m.role == "user")
        told = "".join(m.content for m in dialog if m.role == "assistant")
        whole = "".join(story.split())
        told = "".join((asked.removeprefix("Go on: ") + told).split())
        if asked.startswith("Go on: "):
            assert whole in told
        else:
            assert whole[-200:] in told
        n_whole += whole in told
    assert len(stories) / 4 < n_whole < len(stories)


def test_a_story_without_its_introduction_begins_where_its_theme_does():
    story = ("Anna was a girl. She sang. It was late. Anna and Mom walked home. She saw the moon. "
             "The moon was big. It went with them. Oh moon!")
    begun = _without_introduction(story)
    assert begun.startswith("Anna and Mom walked home. She saw the moon.")
    story = "Anna was a girl. She had a loose tooth. The tooth hurt. Her tooth fell out."
    assert _without_introduction(story) == story


def test_a_theme_is_a_word_that_comes_three_times():
    assert theme_of("A kite, a kite and a moon and a moon.") is None
    both = "A kite, a kite, a moon, a moon, the kite, the moon."
    assert theme_of(both) == "moon", "the first in THEMES"
    assert theme_of("Kites are kitelike: kite, kite.") is None, "whole words alone count"


def test_a_seed_repeats_its_dialogs_and_another_has_others(stories):
    first, again, other = (list(dialogs(stories[:40], seed=seed)) for seed in (1, 1, 2))
    assert first == again != other
