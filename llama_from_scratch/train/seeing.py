"""A small text Llama learns to see, in three stages: words, then shapes, then both together.

1. The text model reads stories, and questions, some of them after a caption. Then it is
   frozen. 2. The encoder learns what is in each quarter of a picture, without any text. 3. The
   adapter (projector, cross-attention, image embedding) and the encoder learn to answer questions
   through the frozen text model: the loss is on the answers alone.

Llama 3.2 Vision was trained in this order too. Without the second stage, an encoder learns very
slowly through a frozen text model.

Notebook 22. Source: The Llama 3 Herd of Models, arXiv:2407.21783, section 7.
"""

import itertools
import random
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from llama_from_scratch.config import VisionConfig, record
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.train.data import IGNORE
from llama_from_scratch.train.picture_batches import (
    all_questions,
    question_batches,
    tiles_of,
)
from llama_from_scratch.train.questions import (
    PICTURE_PX,
    Example,
    PictureTask,
    examples,
)
from llama_from_scratch.train.rates import OnStep, Rates, SeeingStep, gates_of, without_gates
from llama_from_scratch.train.words import WordsStage
from llama_from_scratch.vision.adapter import VisionLlama, attach, detach
from llama_from_scratch.vision.encoder import VisionEncoder
from llama_from_scratch.vision.seeing import SeeingLlama

PLACE_STD = 0.5
"""The standard deviation of fresh place vectors; 0.1 is usual at this width."""


@record
class EncoderStage:
    """Stage 2. Each step looks at `n_images` new pictures.

    `split`: other splits take turns with "train"; with "hues", half of the scenes have random
    colors. `gate_ratio`: how much faster than the rest the gates learn.
    """

    n_steps: int = 500
    n_images: int = 64
    splits: tuple[str, ...] = ("train",)
    peak_lr: float = 2e-3
    gate_ratio: float = 10.0


@record
class AdapterStage:
    """Stage 3. Each step asks `n_questions` about each of `n_images` new pictures.

    `kinds`: of questions, by default all; a kind that is there twice is asked twice as often.
    `peak_lr`: of the cross-attention blocks, the projector and the image embedding; `gate_lr` of
    their gates, `encoder_lr` of the encoder. Gates start at 0 and are single numbers, so they need
    a higher rate to open in time.
    """

    n_steps: int
    n_images: int = 32
    n_questions: int = 3
    kinds: tuple[str, ...] | None = None
    peak_lr: float = 2e-3
    gate_lr: float = 2e-2
    encoder_lr: float = 5e-4


@record
class SeeingRecipe:
    """How a small text model learns a task: its words, its eyes, and the adapter between them.

    `cross_layers`: the text layers with a cross-attention block before them.
    """

    words: WordsStage
    cross_layers: tuple[int, ...] = (0, 1, 2, 3)
    encoder: EncoderStage
    adapter: AdapterStage


QUICK_WORDS = WordsStage(n_steps=150, n_stories=5, caption_share=0.0, peak_lr=3e-3)
"""Enough to know the words, in 20 s; far too little to tell stories."""

RECIPES = {
    "scenes": SeeingRecipe(
        words=QUICK_WORDS, encoder=EncoderStage(n_steps=450, splits=("train", "hues")),
        adapter=AdapterStage(n_steps=900, kinds=("count", "count_color", "color", "shape", "where",
                                                 "place", "exists"))),
    "digits": SeeingRecipe(
        words=QUICK_WORDS, encoder=EncoderStage(n_steps=600),
        adapter=AdapterStage(n_steps=900, kinds=("read", "larger", "side", "sum", "sum"))),
}
"""By the name of the task. Each takes less than three minutes on one core.

Relations are left out: their answers are sentences, and so short a text stage does not teach them.
"""


def learn_to_see(
    text: Llama, task: PictureTask, tokenizer: Tokenizer, *, recipe: SeeingRecipe, seed: int = 0,
    on_step: OnStep = None,
) -> VisionLlama:
    """Returns `text` with an encoder and an adapter that have learned to answer about pictures.

    Its own parameters are frozen and keep every bit. `on_step` is called after each step of both
    stages; only steps of the adapter have gates.
    """
    model = with_eyes(text, cross_layers=recipe.cross_layers, seed=seed)
    train_encoder(model.vision.encoder, task, stage=recipe.encoder, seed=seed, on_step=on_step)
    train_adapter(model, task, tokenizer, stage=recipe.adapter, seed=seed, on_step=on_step)
    return model


def with_eyes(text: Llama, *, cross_layers: Sequence[int], seed: int = 0) -> VisionLlama:
    """Returns `text` with a fresh small encoder attached, whose patches say loudly where they are.

    The vector of a patch is about five times as long as a fresh place vector, so an answer that
    depends on the place would be learned late.
    """
    torch.manual_seed(seed)
    model = attach(text, small_vision_config(text.config.dim), cross_layers=cross_layers)
    nn.init.normal_(model.vision.encoder.positions.in_tile, std=PLACE_STD)
    return model


def small_vision_config(output_dim: int) -> VisionConfig:
    """Returns an encoder of 0.4M parameters for pictures of one tile: 16 patches.

    Its result holds the last state and the first one, because the last one tends to lose the
    place of a patch.
    """
    return VisionConfig(dim=96, n_heads=4, ffn_dim=384, n_local_layers=2, n_global_layers=1,
                        intermediate_layers=(0,), tile_px=PICTURE_PX, patch_px=7, max_tiles=1,
                        aspect_ratios=((1, 1),), norm_eps=1e-5, output_dim=output_dim)


# --- stage 2: the encoder ---------------------------------------------------------------------


class QuarterHead(nn.Module):
    """Says from an encoder's states what is in each quarter: logits for the classes of a task.

    It is only for this stage and is thrown away after it.
    """

    def __init__(self, config: VisionConfig, task: PictureTask) -> None:
        super().__init__()
        self.width, self.n_classes = config.dim, task.n_classes
        self.linear = nn.Linear(config.dim, sum(task.n_classes))

    def forward(
        self, states: Float[Tensor, "I 1 n features"]
    ) -> tuple[Float[Tensor, "I quarters classes"], ...]:
        """Returns logits for each property, from the mean of the last states in a quarter."""
        last = states[:, 0, 1:, : self.width]
        n = int(last.shape[1] ** 0.5) // 2
        quarters = last.unflatten(1, (2, n, 2, n)).mean((2, 4)).flatten(1, 2)
        return self.linear(quarters).split(self.n_classes, dim=-1)


def train_encoder(
    encoder: VisionEncoder, task: PictureTask, *, stage: EncoderStage, seed: int = 0,
    on_step: OnStep = None,
) -> QuarterHead:
    """Trains an encoder in place to say what is in each quarter, and returns the head that says it.
    """
    torch.manual_seed(seed)
    head, pick = QuarterHead(encoder.config, task), random.Random(seed)
    params = dict(encoder.named_parameters())
    head_params = {f"head.{name}": p for name, p in head.named_parameters()}
    rates = Rates([(stage.peak_lr, without_gates(params) | head_params),
                   (stage.peak_lr * stage.gate_ratio, gates_of(params))], n_steps=stage.n_steps)
    for step in range(stage.n_steps):
        pictures = [task.draw(pick, split=split)
                    for split in itertools.islice(itertools.cycle(stage.splits), stage.n_images)]
        tiles = tiles_of(pictures, encoder.config)
        found = head(encoder(tiles.pixels[:, 0], tiles.aspect_ids[:, 0]))
        classes = torch.from_numpy(np.stack([picture.classes for picture in pictures]))
        loss = sum(F.cross_entropy(logits.flatten(0, 1), classes[..., i].flatten(),
                                   ignore_index=IGNORE) for i, logits in enumerate(found))
        rates.step(loss)
        if on_step is not None:
            on_step(SeeingStep(step=step, loss=loss.item(), gates={}))
    return head


# --- stage 3: the adapter -----------------------------------------------------------------------


def train_adapter(
    model: VisionLlama, task: PictureTask, tokenizer: Tokenizer, *, stage: AdapterStage,
    seed: int = 0, on_step: OnStep = None,
) -> None:
    """Trains everything except the text model in place to answer questions about pictures.

    The text model is frozen here: its parameters need no gradient from then on, and no bit of them
    changes.
    """
    freeze_text(model)
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    encoder = {name: p for name, p in params.items() if name.startswith("vision.encoder.")}
    adapter = {name: p for name, p in params.items() if name not in encoder}
    rates = Rates([(stage.peak_lr, without_gates(adapter)), (stage.gate_lr, gates_of(adapter)),
                   (stage.encoder_lr, encoder)], n_steps=stage.n_steps)
    made = examples(task, n_questions=stage.n_questions, split="train", pick=random.Random(seed),
                    kinds=stage.kinds)
    for step in range(stage.n_steps):
        loss = answer_loss(model, list(itertools.islice(made, stage.n_images)), tokenizer)
        rates.step(loss)
        if on_step is not None:
            gates = {name: torch.tanh(p).item() for name, p in gates_of(adapter).items()}
            on_step(SeeingStep(step=step, loss=loss.item(), gates=gates))


def freeze_text(model: VisionLlama) -> None:
    """Marks the parameters of the text model as needing no gradient, and all others as needing one.
    """
    text = set(detach(model).parameters())
    for p in model.parameters():
        p.requires_grad_(p not in text)


def answer_loss(
    model: SeeingLlama, asked: Sequence[Example], tokenizer: Tokenizer
) -> Float[Tensor, ""]:
    """Returns the mean over all questions of the loss per token of the answer, in nats.

    So a long answer counts as much as a short one. Each picture is encoded once.
    """
    questions, of_image = all_questions(asked)
    images = model.encode(tiles_of([each.picture for each in asked], model.config.vision))
    shown, = model.written_out([[model.config.image_id]], images.rows([0]))
    total = torch.zeros(())
    for batch in question_batches(questions, tokenizer, image_id=shown):
        seen = images.rows([of_image[i] for i in batch.rows.tolist()])
        is_answer = batch.targets != IGNORE
        hidden = model.hidden(batch.ids, images=seen)[is_answer]
        losses = F.cross_entropy(model.output(hidden), batch.targets[is_answer], reduction="none")
        share = (is_answer / is_answer.sum(1, keepdim=True))[is_answer]
        total = total + (losses * share).sum()
    return total / len(questions)
