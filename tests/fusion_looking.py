"""Watches what a Llama 4 that sees does with images, and has four of them to show."""

import torch
from chat_dialogs import CORPUS
from fusion_twin import IDS, TILE, grid_images, loud_fusion, made_loud
from llama4_twin import loud_llama4, toy

from llama_from_scratch.config import ImageIds
from llama_from_scratch.generate.sampling import Sampling
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.split import LLAMA4_PATTERN
from llama_from_scratch.vision.early_fusion import fuse_vision
from llama_from_scratch.vision.fusion_tiles import GridImages
from llama_from_scratch.vision.image_layout import n_tiles

IMAGE, PATCH = IDS.image, IDS.patch
GRIDS = ((2, 2), (1, 2), (1, 1), (2, 2))
POOL = [grid_images(((grid,),), seed=seed) for seed, grid in enumerate(GRIDS)]
"""Four different images, of 5, 3, 1 and 5 tiles; the first and the last have one grid."""
HOT = Sampling(temperature=1.5)
"""Draws ids that depend on every image."""


def reader():
    """A model with room for a few images, in float64."""
    return loud_fusion(toy(max_seq_len=512)).double()


def speaker():
    """A model that chats, and its tokenizer, which has few special tokens: so it writes words."""
    of_images = ["image_start", "image_end", "image", "patch", "tile_x_separator",
                 "tile_y_separator"]
    names = ["begin_of_text", "end_of_text", "header_start", "header_end", "eom", "eot", *of_images]
    tokenizer = Tokenizer.train([CORPUS] * 2, 320 + len(names), pattern=LLAMA4_PATTERN,
                                special_tokens=[f"<|{name}|>" for name in names])
    ids = ImageIds(**{name: tokenizer.special_ids[f"<|{name}|>"] for name in of_images})
    text = loud_llama4(toy(vocab_size=tokenizer.vocab_size, max_seq_len=512))
    model = fuse_vision(text, TILE, image_ids=ids)
    made_loud(model.vision)
    return model.double().eval(), tokenizer


def shown(*rows):
    """The images of a batch: for each row the numbers of its images in `POOL`, or None for none."""
    if not any(rows):
        return None
    pixels = torch.cat([POOL[number].pixels for row in rows for number in row])
    return GridImages(pixels=pixels.clone(),
                      grids=tuple(tuple(GRIDS[number] for number in row) for row in rows))


class Reads:
    """The tiles that a model encodes, and the ids and places of images that go through it."""

    def __init__(self, model):
        self.n_tiles, self.n_calls, self.n_ids, self.n_places = 0, 0, 0, 0
        self._model = model

    def __enter__(self):
        def encoded(_, inputs):
            self.n_calls += 1
            self.n_tiles += len(inputs[0])

        def read(_, inputs):
            self.n_ids += inputs[0].numel()
            self.n_places += int((inputs[0] == self._model.place_id).sum())

        self._hooks = [self._model.vision.register_forward_pre_hook(encoded),
                       self._model.tok_embeddings.register_forward_pre_hook(read)]
        return self

    def __exit__(self, *_):
        for hook in self._hooks:
            hook.remove()


def tiles_of(numbers):
    """How many tiles these images of the pool have."""
    return sum(n_tiles(GRIDS[number]) for number in numbers)
