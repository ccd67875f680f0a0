"""The ids that write an image into a text of a Llama 4, where a file names only some of them.

The special tokens follow the learned ones, always in the same order. So the ids of a smaller
vocabulary are the released ones, moved by one number.

Notebook 24. Source: llama-models, models/llama4/tokenizer.py.
"""

import dataclasses

from llama_from_scratch import family
from llama_from_scratch.config import ImageIds

_RELEASED = family.config("llama-4-scout-17b-16e")


def ids_from(image_start: int) -> ImageIds:
    """Returns the ids of a vocabulary in which an image begins with the id `image_start`."""
    return _moved(image_start - _RELEASED.image_ids.image_start)


def ids_in(vocab_size: int) -> ImageIds:
    """Returns the ids of a vocabulary with this many ids, the last of which are special tokens.

    Raises ValueError if it has no room for them.
    """
    return _moved(vocab_size - _RELEASED.vocab_size)


def _moved(by: int) -> ImageIds:
    return ImageIds(**{name: number + by
                       for name, number in dataclasses.asdict(_RELEASED.image_ids).items()})
