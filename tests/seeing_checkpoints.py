"""A small model that sees with the arithmetic of Llama 3.2, its tokenizer, and what both read."""

import dataclasses
import functools

import torch
from seeing_twin import loud as loud_of
from seeing_twin import pictures
from tiny_checkpoints import TEXT, VOCAB

from llama_from_scratch import family
from llama_from_scratch.tokenizer import released
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.vision.adapter import VisionLlama, share_places
from llama_from_scratch.vision.encoder import Gate

IMAGE = VOCAB
CONFIG = dataclasses.replace(family.tiny("llama-3.2-vision"), vocab_size=VOCAB, image_id=IMAGE)


@functools.cache
def tokenizer():
    """A small tokenizer with the special tokens of Llama 3.2 Vision; <|image|> is its last."""
    return Tokenizer.train(TEXT, VOCAB + 1,
                           special_tokens=released.SPECIAL_TOKENS["llama-3.2-vision"])


def seeing(config=CONFIG, *, seed=0, has_one_grid=True):
    """A model in which every part matters and every gate is open.

    `has_one_grid`: its tables of places are such as Meta's layout can hold.
    """
    model = loud_of(config.text, config.vision, cross_layers=config.cross_layers, seed=seed)
    assert model.config == config, (model.config, config)
    if has_one_grid:
        share_places(model)
    return model


def ids_and_pictures():
    """A batch: two images of 4 and 2 tiles; one of 1 tile; an image after text."""
    ids = torch.randint(VOCAB, (3, 12), generator=torch.Generator().manual_seed(3))
    ids[0, 1], ids[0, 6], ids[1, 0], ids[2, 4] = IMAGE, IMAGE, IMAGE, IMAGE
    return ids, pictures([[6, 2], [1, 0], [7, 0]], config=CONFIG.vision)


@torch.no_grad()
def logits(model: VisionLlama):
    """What a model answers to `ids_and_pictures`."""
    ids, images = ids_and_pictures()
    return model(ids, images=images)


def gates(model):
    """The gates of a model by name."""
    return {name: part for name, part in model.named_modules() if isinstance(part, Gate)}
