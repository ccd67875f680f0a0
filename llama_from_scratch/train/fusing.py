"""A small text Llama learns to read images as tokens of its text: early fusion, as in Llama 4.

The stages are the same as in `seeing`, so that both ways to see can be compared: the text model has
read words, the encoder learns by itself what is in each quarter of a picture, and then the whole
learns to answer questions. Nothing is attached to the layers: what the encoder gives takes places
in the text. So the text model itself must learn to use it. It can also stay frozen, to see what is
lost.

Letters: I images, W vision width. Notebook 24. Llama 4.
"""

import itertools
import random

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from llama_from_scratch.config import ImageIds, TileEncoderConfig, record
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.train.data import IGNORE
from llama_from_scratch.train.picture_batches import tiles_of
from llama_from_scratch.train.questions import PICTURE_PX, PictureTask, examples
from llama_from_scratch.train.rates import OnStep, Rates, SeeingStep
from llama_from_scratch.train.seeing import answer_loss
from llama_from_scratch.vision.early_fusion import FusionLlama, fuse_vision
from llama_from_scratch.vision.fusion_encoder import TileEncoder


@record
class TileStage:
    """The encoder's own stage. Each step looks at `n_images` new pictures."""

    n_steps: int = 450
    n_images: int = 64
    peak_lr: float = 2e-3


@record
class FusionStage:
    """The last stage. Each step asks `n_questions` about each of `n_images` new pictures.

    `kinds`: of questions, by default all; a kind that is there twice is asked twice as often.
    `peak_lr`: of the adapter and the projector; `encoder_lr` of the encoder; `text_lr` of the text
    model, where 0 freezes it.
    """

    n_steps: int
    n_images: int = 32
    n_questions: int = 3
    kinds: tuple[str, ...] | None = None
    peak_lr: float = 2e-3
    encoder_lr: float = 5e-4
    text_lr: float = 1e-3


def small_tile_config(output_dim: int) -> TileEncoderConfig:
    """Returns an encoder of 0.4M parameters for pictures of one tile: 16 patches, 4 tokens."""
    return TileEncoderConfig(dim=96, n_heads=4, ffn_dim=384, n_layers=3, tile_px=PICTURE_PX,
                             patch_px=7, max_tiles=1, adapter_dim=96, output_dim=output_dim,
                             norm_eps=1e-5)


def reserved_image_ids(tokenizer: Tokenizer) -> ImageIds:
    """Returns six ids that a tokenizer of Llama 3 has reserved and never used, for an image."""
    names = ("image_start", "image_end", "image", "patch", "tile_x_separator", "tile_y_separator")
    return ImageIds(**{name: tokenizer.special_ids[f"<|reserved_special_token_{i}|>"]
                       for i, name in enumerate(names, start=10)})


def with_tile_eyes(text: Llama, tokenizer: Tokenizer, *, seed: int = 0) -> FusionLlama:
    """Returns `text` with a fresh small encoder whose tokens it reads; no weight is copied."""
    torch.manual_seed(seed)
    return fuse_vision(text, small_tile_config(text.config.dim),
                       image_ids=reserved_image_ids(tokenizer))


# --- the encoder ----------------------------------------------------------------------------------


class TileQuarterHead(nn.Module):
    """Says what is in each quarter of a tile, from the mean of its patches; only for this stage."""

    def __init__(self, config: TileEncoderConfig, task: PictureTask) -> None:
        super().__init__()
        self.half, self.n_classes = config.grid // 2, task.n_classes
        self.linear = nn.Linear(config.dim, sum(task.n_classes))

    def forward(
        self, states: Float[Tensor, "I P W"]
    ) -> tuple[Float[Tensor, "I quarters classes"], ...]:
        """Returns logits for each property."""
        quarters = states.unflatten(1, (2, self.half, 2, self.half)).mean((2, 4)).flatten(1, 2)
        return self.linear(quarters).split(self.n_classes, dim=-1)


def train_tile_encoder(
    encoder: TileEncoder, task: PictureTask, *, stage: TileStage, seed: int = 0,
    on_step: OnStep = None,
) -> TileQuarterHead:
    """Trains an encoder in place to say what is in each quarter, and returns the head that says it.
    """
    torch.manual_seed(seed)
    head, pick = TileQuarterHead(encoder.config, task), random.Random(seed)
    params = dict(encoder.named_parameters())
    params |= {f"head.{name}": p for name, p in head.named_parameters()}
    rates = Rates([(stage.peak_lr, params)], n_steps=stage.n_steps)
    for step in range(stage.n_steps):
        pictures = [task.draw(pick, split="train") for _ in range(stage.n_images)]
        found = head(encoder(tiles_of(pictures, encoder.config).pixels))
        classes = torch.from_numpy(np.stack([picture.classes for picture in pictures]))
        loss = sum(F.cross_entropy(logits.flatten(0, 1), classes[..., i].flatten(),
                                   ignore_index=IGNORE) for i, logits in enumerate(found))
        rates.step(loss)
        if on_step is not None:
            on_step(SeeingStep(step=step, loss=loss.item(), gates={}))
    return head


# --- the whole ------------------------------------------------------------------------------------


def train_fusion(
    model: FusionLlama, task: PictureTask, tokenizer: Tokenizer, *, stage: FusionStage,
    seed: int = 0, on_step: OnStep = None,
) -> None:
    """Trains a model in place to answer questions about pictures that are tokens of its text.

    With the same seed, the examples are the same as in `seeing.train_adapter`, in the same order.
    """
    encoder, rest, text = {}, {}, {}
    for name, p in model.named_parameters():
        place = (encoder if name.startswith("vision.encoder.")
                 else rest if name.startswith("vision.") else text)
        place[name] = p.requires_grad_(place is not text or stage.text_lr > 0)
    groups = [(stage.peak_lr, rest), (stage.encoder_lr, encoder)]
    groups += [(stage.text_lr, text)] if stage.text_lr > 0 else []
    rates = Rates(groups, n_steps=stage.n_steps)
    made = examples(task, n_questions=stage.n_questions, split="train", pick=random.Random(seed),
                    kinds=stage.kinds)
    for step in range(stage.n_steps):
        loss = answer_loss(model, list(itertools.islice(made, stage.n_images)), tokenizer)
        rates.step(loss)
        if on_step is not None:
            on_step(SeeingStep(step=step, loss=loss.item(), gates={}))
