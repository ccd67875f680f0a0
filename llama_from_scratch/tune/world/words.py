"""The words of the small world, and which combinations of them are never trained.

Names, things, colors, places and tastes are words of the stories, so that the stories, the base
model and the assistant share one vocabulary. A test that only repeats training shows memory. So
combinations are held out by a rule on the numbers of the words: each word is trained, but some
pairs are not. Since it is arithmetic, anybody can list these pairs and search texts for them.

Notebook 50.
"""

NAMES = ("Tom", "Mia", "Ben", "Anna", "Leo", "Lily", "Max", "Zoe", "Sam", "Nora", "Omar", "Ella",
         "Ravi", "Ruby", "Jack", "Maya", "Finn", "Rosa", "Hugo", "Ivy", "Adam", "Clara", "Noah",
         "Emma")
THINGS = ("ball", "kite", "drum", "doll", "lamp", "hat", "scarf", "bell", "cup", "key", "shell",
          "boat", "book", "coin", "flute", "bucket")
COLORS = ("red", "blue", "green", "yellow", "orange", "purple", "white", "black")
PLACES = {"garden": "in", "park": "in", "forest": "in", "meadow": "in", "beach": "at",
          "farm": "at", "lake": "by", "river": "by", "pond": "by", "hill": "on", "orchard": "in",
          "playground": "at"}
"""The places, each with its preposition."""
TASTES = ("tea", "milk", "soup", "bread", "honey", "cake", "apples", "pears")
MARKS = ("moon", "river", "stone", "apple", "cloud", "bread", "horse", "window", "flower", "snow",
         "bird", "tree", "milk", "song", "star", "boat")
"""Words that an answer can be told to begin or end with."""

SPLITS = ("train", "test")


def is_held_out(name: str, thing: str) -> bool:
    """Returns whether training never shows this name as the owner of this thing: one pair in five.

    Raises ValueError for a word that is not of the world.
    """
    for word, words in ((name, NAMES), (thing, THINGS)):
        if word not in words:
            raise ValueError(f"the world knows {', '.join(words)}; got {word!r}")
    return (7 * NAMES.index(name) + 3 * THINGS.index(thing)) % 5 == 0


def check_split(split: str) -> None:
    """Raises ValueError unless `split` is "train" or "test"."""
    if split not in SPLITS:
        raise ValueError(f'a split is "train" or "test"; got {split!r}')
