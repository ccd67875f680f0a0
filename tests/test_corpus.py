"""The bundled corpus is what data/README.md says it is.

The same bytes, thousands of stories, the words of a young child, clean text.
"""

import hashlib
import re
import sys
from collections import Counter
from itertools import islice
from random import Random

import pytest

from llama_from_scratch import bundled

DATA = bundled.path("README.md").parent
sys.path.insert(0, str(DATA))  # the generator is a script beside the data, outside the package

import make_stories  # noqa: E402
from stories.story import Character, Story, Thing, tidy  # noqa: E402

ROW = re.compile(r"^\| `(?P<file>[^`]+)` \| (?P<size>[\d,]+) \| `(?P<sha256>[0-9a-f]{64})` \|",
                 re.MULTILINE)


@pytest.fixture(scope="module")
def text() -> str:
    return bundled.path("stories.txt").read_bytes().decode("ascii")


@pytest.fixture(scope="module")
def corpus(text) -> list[str]:
    return text.removesuffix("\n").split("\n\n")


def test_readme_states_the_true_size_and_hash_of_each_file():
    rows = [row.groupdict() for row in ROW.finditer((DATA / "README.md").read_text())]
    assert "stories.txt" in {row["file"] for row in rows}
    for row in rows:
        content = (DATA / row["file"]).read_bytes()
        assert f"{len(content):,}" == row["size"], row["file"]
        assert hashlib.sha256(content).hexdigest() == row["sha256"], row["file"]


def test_readme_lists_every_file_of_text():
    listed = {row["file"] for row in ROW.finditer((DATA / "README.md").read_text())}
    assert {path.name for path in DATA.glob("*.txt")} <= listed


def test_the_same_seed_tells_the_same_stories_again(corpus):
    assert list(islice(make_stories.stories(make_stories.SEED), 500)) == corpus[:500]


def test_another_seed_tells_other_stories(corpus):
    other = set(islice(make_stories.stories(make_stories.SEED + 1), 200))
    assert not other & set(corpus)


def test_there_are_thousands_of_stories_and_none_is_told_twice(corpus):
    assert len(corpus) == make_stories.COUNT >= 4_000
    assert len(set(corpus)) == len(corpus)


def test_most_sentences_are_said_only_once_or_twice(corpus):
    sentences = [s for story in corpus for s in re.split(r'(?<=[.!?]) (?=["A-Z])|\n', story)]
    assert len(set(sentences)) / len(sentences) > 0.6


def test_words_are_those_of_a_young_child(text):
    assert len(set(re.findall(r"[a-z]+(?:n't)?", text.lower().replace("'s", "")))) < 2_500


def test_every_story_has_a_fair_length_and_people_who_speak(corpus):
    for story in corpus:
        assert 60 <= len(re.findall(r"[A-Za-z']+", story)) <= 250, story
        assert story.count('"') >= 2, story


def test_no_template_shows_through(text):
    assert not set(text) & set("[]{}|~_=")
    assert text.isascii() and "\r" not in text and text.endswith("\n")


PUNCTUATION = r" [.,!?]|  |[.,!?]{2}(?<!\.\.)|[a-z][.!?][A-Za-z]|(?<!\.\.)[.!?] [a-z]"
WORDS = r"\b[Aa] [aeio]|\b[Aa]n (?!hour|honest)[^aeiouAEIOU]|\b(\w+) \1\b"
"""What must not be in the text: a wrong article, or the same word twice in a row."""


def test_paragraphs_are_clean_sentences(corpus):
    for paragraph in (line for story in corpus for line in story.split("\n")):
        assert re.fullmatch(r'"?[A-Z].*[.!?]"?', paragraph), paragraph
        assert paragraph.count('"') % 2 == 0, paragraph
        assert not re.search(PUNCTUATION, paragraph), paragraph
        assert not re.search(WORDS, paragraph), paragraph


def test_questions_end_with_a_question_mark(corpus):
    asks = (r'"(?:What|Where|Why|Who|Is it|Are you|Do you|Did you|Can you|Will you|Would you)'
            r'\b[^"?!]*[.]"')
    for story in corpus:
        assert not re.search(asks, story), story


def test_training_and_validation_parts_tell_the_same_kinds_of_stories(corpus):
    cut = len(corpus) * 95 // 100
    parts = corpus[:cut], corpus[cut:]
    for word in ("kite", "thunder", "riddle", "robot", "market", "baby", "promise", "caterpillar",
                 "seed", "library"):
        rates = [sum(word in story for story in part) / len(part) for part in parts]
        assert 0.4 < rates[0] / rates[1] < 2.5, (word, rates)


@pytest.mark.parametrize("frame", make_stories.FRAMES, ids=lambda frame: frame.__name__)
def test_frame_tells_many_stories_with_its_hero_from_start_to_end(frame):
    drafts = []
    for seed in range(40):
        story = Story(Random(seed))
        frame(story)
        drafts.append(story.text())
        assert story.roles["h"].name in story.text().rpartition("\n")[0][:400] + story.text()[:400]
    assert len(set(drafts)) == 40
    n_words = Counter(len(draft.split()) for draft in drafts)
    assert sum(map(make_stories.is_good, drafts)) >= 20, n_words


def test_there_are_many_different_plots():
    assert len(set(make_stories.FRAMES)) == len(make_stories.FRAMES) >= 25


def two_boys_and_a_girl() -> Story:
    story = Story(Random(0))
    for role, name, gender in (("a", "Tom", "m"), ("b", "Ben", "m"), ("c", "Mia", "f")):
        story.roles[role] = Character(name=name, kind="child", gender=gender)
    return story


def test_pronoun_means_the_one_mentioned_last():
    text = two_boys_and_a_girl().fill("{a} ran. {a.he} fell, and {a.his} knee hurt.")
    assert text == "Tom ran. he fell, and his knee hurt."


def test_pronoun_gives_way_to_the_name_where_it_would_mislead():
    text = two_boys_and_a_girl().fill("{a} saw {b}. {a.he} waved to {b.him}.")
    assert text == "Tom saw Ben. Tom waved to Ben."


def test_a_girl_does_not_take_a_boys_pronoun():
    text = two_boys_and_a_girl().fill("{a} saw {c}. {a.he} waved to {c.him}.")
    assert text == "Tom saw Mia. he waved to her."


def test_a_thing_keeps_its_color():
    story = Story(Random(0))
    story.roles["t"] = Thing(noun="ball", color="red")
    assert story.fill("{t.a}, {t.the}, {t}") == "a red ball, the red ball, ball"


def test_tidy_corrects_articles_and_capitals():
    told = tidy('there was a  owl , a one. "a egg!" said Tom')
    assert told == 'There was an owl, a one. "An egg!" said Tom'


def test_phrase_said_twice_makes_a_story_dull():
    fine = " ".join(f"{a}{b}" for a in "abcdefgh" for b in "ijklmnopqr")
    assert make_stories.is_good(fine)
    assert not make_stories.is_good(fine + " " + " ".join(fine.split()[:8]))
    assert not make_stories.is_good("too short")
