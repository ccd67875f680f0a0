"""From pictures and questions to tensors: tiles, token ids, and which tokens are the answer.

A question is one row: begin-of-text, the ids of the image, the question, the answer, end-of-text.
Rows of similar lengths go through the model together, so little is padded. An image is encoded once
for all its questions.

Notebooks 22 and 24.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from llama_from_scratch.config import TileEncoderConfig, VisionConfig, record
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.train.data import IGNORE
from llama_from_scratch.train.questions import Example, Picture, PictureQuestion
from llama_from_scratch.vision.fusion_tiles import GridImages
from llama_from_scratch.vision.tiles import GridTiling, TiledImages, Tiling, normalized_values

_SHORT = 16
"""Rows with more ids than this are a group of their own; an image counts as one."""


def tiles_of(
    pictures: Sequence[Picture], vision: VisionConfig | TileEncoderConfig
) -> TiledImages | GridImages:
    """Returns what the model's `cut` returns for one picture in each row, without resizing.

    Raises ValueError unless each picture is exactly one tile.
    """
    pixels = np.stack([picture.pixels for picture in pictures])
    if vision.max_tiles != 1 or pixels.shape[1:] != (vision.tile_px, vision.tile_px, 3):
        raise ValueError("these pictures are one tile each, so the encoder needs max_tiles=1 and "
                         f"tile_px={pixels.shape[1]}; got max_tiles={vision.max_tiles} and "
                         f"tile_px={vision.tile_px}. Cut other pictures with vision.split")
    is_grid = isinstance(vision, TileEncoderConfig)
    tiling = (GridTiling if is_grid else Tiling)(size_px=vision.tile_px, max_tiles=1)
    values = normalized_values(tiling)
    tiles = torch.from_numpy(
        np.stack([values[color][pixels[..., color]] for color in range(3)], axis=1))
    if is_grid:
        return GridImages(pixels=tiles, grids=(((1, 1),),) * len(pictures))
    return TiledImages(pixels=tiles[:, None, None],
                       aspect_ids=torch.ones(len(pictures), 1, dtype=torch.int64))


@record
class QuestionBatch:
    """Questions as token ids. `targets`: the answer's tokens and end-of-text, else IGNORE.

    `rows`: which of the questions given each row is.
    """

    ids: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]
    rows: Int[Tensor, "B"]


def question_batches(
    questions: Sequence[PictureQuestion], tokenizer: Tokenizer, *,
    image_id: int | Sequence[int] | None,
) -> list[QuestionBatch]:
    """Returns all questions, in one batch of short rows and one of long rows, if there are any.

    `image_id`: comes before each question; all ids of an image that takes several places in the
    text; None leaves it out, for a model that sees nothing.
    """
    shown = () if image_id is None else image_id if isinstance(image_id, Sequence) else (image_id,)
    rows = [_row(question, tokenizer, shown=shown) for question in questions]
    longest = _SHORT + max(0, len(shown) - 1)
    groups = [[i for i, (ids, _) in enumerate(rows) if (len(ids) > longest) == is_long]
              for is_long in (False, True)]
    return [QuestionBatch(ids=padded([rows[i][0] for i in group], fill=tokenizer.eos_id),
                          targets=padded([rows[i][1] for i in group], fill=IGNORE),
                          rows=torch.tensor(group))
            for group in groups if group]


def _row(
    question: PictureQuestion, tokenizer: Tokenizer, *, shown: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Returns ids, and for each the id that follows it if that belongs to the answer."""
    asked = [tokenizer.bos_id, *shown, *tokenizer.encode(question.text)]
    answer = [*tokenizer.encode(" " + question.answer), tokenizer.eos_id]
    return asked + answer[:-1], [IGNORE] * (len(asked) - 1) + answer


def padded(rows: Sequence[Sequence[int]], *, fill: int) -> Int[Tensor, "B T"]:
    """Returns the rows as one tensor, filled up on the right."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])


def all_questions(examples: Sequence[Example]) -> tuple[list[PictureQuestion], list[int]]:
    """Returns the questions of some examples, and of which example each is."""
    pairs = [(question, i) for i, example in enumerate(examples) for question in example.questions]
    return [question for question, _ in pairs], [i for _, i in pairs]
