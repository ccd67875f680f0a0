"""Writes data/stories.txt: thousands of short stories for a small Llama to learn from.

The data comes from a program. A frame (data/stories/frames_*.py) is a plot: who wants what, what
gets in the way, and how it ends. It chooses characters and things with properties, and writes its
story from templates with many ways to say each sentence. Its end mentions again what its beginning
introduced, so that a model that uses distant text predicts it better. The same seed gives the same
bytes on every machine.

    python data/make_stories.py                              makes data/stories.txt again
    python data/make_stories.py --count 100 --seed 1 --out my.txt

The file is plain ASCII. A story is one or more lines (its paragraphs), and an empty line separates
two stories.
"""

import argparse
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

from stories import (
    frames_friends,
    frames_home,
    frames_making,
    frames_outdoors,
    frames_small,
    frames_wonder,
)
from stories.story import Story

THEMES = (frames_friends, frames_home, frames_making, frames_outdoors, frames_small, frames_wonder)
FRAMES = tuple(frame for theme in THEMES for frame in theme.FRAMES)
COUNT, SEED = 4_500, 2024
MIN_WORDS, MAX_WORDS = 60, 250
REPEAT = 8  # a story with a run of this many words that occurs twice is dull to read


def is_good(text: str) -> bool:
    """Returns whether a draft has a fair length and no phrase of `REPEAT` words occurs twice."""
    said = re.findall(r"[a-z']+", text.lower())
    runs = [tuple(said[i : i + REPEAT]) for i in range(len(said) - REPEAT + 1)]
    return MIN_WORDS <= len(said) <= MAX_WORDS and len(runs) == len(set(runs))


def stories(seed: int) -> Iterator[str]:
    """Yields different stories without end. Each round uses every frame once, in a new order."""
    rng = Random(seed)
    told = set()
    while True:
        for frame in rng.sample(FRAMES, len(FRAMES)):
            story = Story(rng)
            frame(story)
            text = story.text()
            if text not in told and is_good(text):
                told.add(text)
                yield text


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the bundled corpus of short stories.")
    parser.add_argument("--count", type=int, default=COUNT,
                        help=f"number of stories (default {COUNT})")
    parser.add_argument("--seed", type=int, default=SEED,
                        help=f"seed of the random choices (default {SEED})")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("stories.txt"),
                        help="file to write")
    args = parser.parse_args()
    text = "\n\n".join(islice(stories(args.seed), args.count)) + "\n"
    args.out.write_bytes(text.encode("ascii"))
    print(f"{args.out}: {args.count} stories, {len(text)} bytes")


if __name__ == "__main__":
    main()
