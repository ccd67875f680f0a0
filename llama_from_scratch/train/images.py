"""Batches of texts with images: a question about an image, and the answer to learn.

Each row is a prompt, in which image ids stand for its images, and an answer. Only the answer's
tokens are targets: a model learns nothing by guessing the questions, and no logit exists for an
image id. Several rows may ask about the same images, which then go through the encoder once.

Notebook 22.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.model.mask import PADDING
from llama_from_scratch.train.data import IGNORE, Batch
from llama_from_scratch.vision.adapter import EncodedImages, VisionLlama
from llama_from_scratch.vision.tiles import TiledImages


@record
class ImageBatch(Batch):
    """A `Batch` with images. Text row b shows the images of row `image_rows[b]` of `images`.

    Raises ValueError for a row of images that is not there or that no text row shows.
    """

    images: TiledImages
    image_rows: Int[Tensor, "B"]

    def __post_init__(self) -> None:
        n_rows, asked = len(self.images.aspect_ids), self.image_rows
        if asked.shape != self.ids.shape[:1] or asked.dtype != torch.int64:
            raise ValueError(f"image_rows must be one int64 per text row, ({len(self.ids)},); got "
                             f"{tuple(asked.shape)} of {asked.dtype}".replace("torch.", ""))
        if not torch.equal(asked.unique(), torch.arange(n_rows, device=asked.device)):
            raise ValueError(f"image_rows must name each of the {n_rows} rows of images, from 0 to "
                             f"{n_rows - 1}, and no other; got {asked.tolist()[:16]}")

    def logits(self, model: VisionLlama) -> Float[Tensor, "B T V"]:
        """Returns the model's logits of the next tokens; each image is encoded once.

        Raises ValueError if an id without logits, such as an image's, is a target.
        """
        return model(self.ids, **self._inputs(model))

    def hidden(self, model: VisionLlama) -> Float[Tensor, "B T D"]:
        """Returns what the output layer turns into these logits. Errors as in `logits`."""
        return model.hidden(self.ids, **self._inputs(model))

    def _inputs(self, model: VisionLlama) -> dict[str, Tensor | EncodedImages]:
        n_logits = model.config.vocab_size
        if (self.targets >= n_logits).any():
            raise ValueError(f"a target must be an id with logits, below {n_logits}; got "
                             f"{int(self.targets.max())}. What stands for an image is read and "
                             f"never predicted: set its target to {IGNORE}")
        encoded = model.encode(self.images).rows(self.image_rows)
        return dict(positions=self.positions, documents=self.documents, images=encoded)

    def to(self, device: torch.device | str) -> "ImageBatch":
        return ImageBatch(
            **_text(super().to(device)), image_rows=self.image_rows.to(device),
            images=TiledImages(pixels=self.images.pixels.to(device),
                               aspect_ids=self.images.aspect_ids.to(device)))

    def split(self, n_rows: int) -> list["ImageBatch"]:
        """Returns micro-batches of `n_rows` text rows, each with the images that it shows."""
        parts = []
        for i, text in enumerate(super().split(n_rows)):
            used, rows = self.image_rows[i * n_rows : (i + 1) * n_rows].unique(return_inverse=True)
            parts.append(ImageBatch(
                **_text(text), image_rows=rows,
                images=TiledImages(pixels=self.images.pixels[used],
                                   aspect_ids=self.images.aspect_ids[used])))
        return parts


def image_batch(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], *, images: TiledImages,
    image_rows: Sequence[int] | None = None,
) -> ImageBatch:
    """Returns a batch in which the model reads each prompt and learns the ids of its answer.

    Shorter rows are padded on the right. `image_rows`: the row of `images` that each prompt is
    about; by default prompt b is about row b.
    Raises ValueError for prompts and answers of unequal number and for empty ones.
    """
    if len(prompts) != len(answers) or not prompts:
        raise ValueError("each prompt needs an answer, and a batch at least one of both; got "
                         f"{len(prompts)} prompts and {len(answers)} answers")
    for kind, texts in (("prompt", prompts), ("answer", answers)):
        if empty := [b for b, ids in enumerate(texts) if not len(ids)]:
            raise ValueError(f"{kind} {empty[0]} is empty; give it at least one id")
    width = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True))
    ids_BT = torch.zeros(len(prompts), width - 1, dtype=torch.int64)
    targets_BT = torch.full_like(ids_BT, IGNORE)
    documents_BT = torch.full_like(ids_BT, PADDING)
    for b, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        text = torch.tensor([*prompt, *answer])
        n = len(text) - 1
        ids_BT[b, :n], documents_BT[b, :n] = text[:-1], 0
        targets_BT[b, len(prompt) - 1 : n] = text[len(prompt) :]
    rows = range(len(prompts)) if image_rows is None else image_rows
    return ImageBatch(ids=ids_BT, targets=targets_BT, documents=documents_BT, images=images,
                      positions=torch.arange(width - 1).expand_as(ids_BT),
                      image_rows=torch.tensor(list(rows), dtype=torch.int64))


def _text(batch: Batch) -> dict[str, Tensor]:
    """Returns the fields of a batch without images."""
    return {name: getattr(batch, name) for name in Batch.__dataclass_fields__}
