"""What tests of tokenizer.json share: comparing ids, and changing a file."""

import json
import random

import tokenizers
from tokenizer_texts import CORPUS, random_text


def assert_same_ids(ours, theirs: tokenizers.Tokenizer, *, n_texts: int = 1500) -> None:
    rng, special = random.Random(0), list(ours.special_ids)[:12]
    for text in [CORPUS, *(random_text(rng, special, characters=0x30000) for _ in range(n_texts))]:
        ids = ours.encode(text, allowed_special="all")
        assert ids == theirs.encode(text, add_special_tokens=False).ids, text


def changed(path, **changes) -> None:
    """Writes the tokenizer.json again with other values at dotted names."""
    file = json.loads(path.read_text())
    for name, value in changes.items():
        *way, last = name.split("__")
        place = file
        for key in way:
            place = place[key]
        place[last] = value
    path.write_text(json.dumps(file))
