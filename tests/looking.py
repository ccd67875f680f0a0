"""Watches what a model that sees does with images: which it encodes, and which it projects."""

import pytest
from seeing_twin import pictures

from llama_from_scratch.generate.sampling import Sampling
from llama_from_scratch.vision.cross_attention import CrossAttention
from llama_from_scratch.vision.tiles import TiledImages

POOL = pictures([[6, 2, 1, 6]], seed=5)
"""Four different images, of 4, 2, 1 and 4 tiles; the first and the last have one canvas."""
HOT = Sampling(temperature=1.5)
"""Draws ids that depend on every image. The likeliest ids of a random model hardly do."""


def shown(*rows):
    """The images of a batch: for each row the numbers of its images in `POOL`, or None for none."""
    most = max(map(len, rows))
    if not most:
        return None
    pixels = POOL.pixels.new_zeros(len(rows), most, *POOL.pixels.shape[2:])
    ids = POOL.aspect_ids.new_zeros(len(rows), most)
    for b, row in enumerate(rows):
        for i, number in enumerate(row):
            pixels[b, i], ids[b, i] = POOL.pixels[0, number], POOL.aspect_ids[0, number]
    return TiledImages(pixels=pixels, aspect_ids=ids)


class Looks:
    """The images that a model encodes (`n_encoded`), and the image tokens of each projection.

    `projected`: one number per call of `CrossAttention.keys_and_values`.
    """

    def __init__(self, model):
        self.n_encoded, self.projected = 0, []
        self._model, self._patch = model, pytest.MonkeyPatch()

    def __enter__(self):
        original = CrossAttention.keys_and_values

        def keys_and_values(part, states):
            self.projected.append(states.shape[1])
            return original(part, states)

        def encoded(_, inputs):
            self.n_encoded += len(inputs[0])

        self._patch.setattr(CrossAttention, "keys_and_values", keys_and_values)
        self._hook = self._model.vision.register_forward_pre_hook(encoded)
        return self

    def __exit__(self, *_):
        self._hook.remove()
        self._patch.undo()
