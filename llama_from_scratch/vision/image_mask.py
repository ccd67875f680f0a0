"""Which images a token sees: from the places of the image tokens in the text.

An image token says where an image belongs. It and the text after it see the image, until the next
image token. Image tokens that directly follow each other form a run, and the text after a run sees
all of its images. An image token itself sees the images of its run up to its own. Text before the
first image sees none. So what a token sees depends only on what comes before it, and a text can be
read in pieces.

Notebook 22. Llama 3.2 Vision. Source: llama-models, models/llama3/chat_format.py.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.model.mask import GivenMask


@record
class Sight:
    """The images that each token sees: its row's images number `first`, ..., `end` - 1.

    Numbers count from 0 in each row. `end` is also how many image tokens the row has up to and
    including this token. A token for which both are equal sees no image.
    """

    first: Int[Tensor, "B T"]
    end: Int[Tensor, "B T"]


@record
class Before:
    """What comes before the first token of a piece of text: nothing, or the rest of the text.

    `first`, `end`: the `Sight` of the token before. `is_image`: whether it is an image token.
    `documents`: its document; None if there is no token before.
    """

    first: Int[Tensor, "B 1"]
    end: Int[Tensor, "B 1"]
    is_image: Bool[Tensor, "B 1"]
    documents: Int[Tensor, "B 1"] | None


def nothing_before(batch_size: int, *, device: torch.device | str = "cpu") -> Before:
    """Returns the `Before` of a text's first piece."""
    zero_B1 = torch.zeros(batch_size, 1, dtype=torch.int64, device=device)
    return Before(first=zero_B1, end=zero_B1, is_image=zero_B1 > 0, documents=None)


def sight(
    is_image: Bool[Tensor, "B T"], *, before: Before,
    documents: Int[Tensor, "#B T"] | None = None,
) -> Sight:
    """Returns which images each token sees.

    `documents`: the document of each token, as in `model.mask`; a token sees only the images of its
    own document. None means that all of them belong to document 0.
    """
    end_BT = is_image.cumsum(1) + before.end
    follows_image_BT = torch.cat([before.is_image, is_image[:, :-1]], dim=1)
    begins_run_BT = is_image & ~follows_image_BT
    changes_BT = torch.zeros_like(is_image)
    if documents is not None or before.documents is not None:
        documents_BT = (torch.zeros_like(end_BT) if documents is None
                        else documents.expand_as(end_BT))
        last_B1 = documents_BT[:, :1] if before.documents is None else before.documents
        changes_BT = documents_BT != torch.cat([last_B1, documents_BT[:, :-1]], dim=1)
    n_past_BT = end_BT - is_image.long()
    starts_BT = torch.where(begins_run_BT | changes_BT, n_past_BT, before.first)
    return Sight(first=starts_BT.cummax(1).values, end=end_BT)


@record
class ImageSlots:
    """Which image each slot of each row holds. Rows with fewer images have slots with padding.

    `numbers`: of the image in its row, counted from 0; -1 for padding. `n_tiles`: of the image.
    """

    numbers: Int[Tensor, "B I"]
    n_tiles: Int[Tensor, "B I"]

    @classmethod
    def none(cls, batch_size: int, *, device: torch.device | str = "cpu") -> "ImageSlots":
        """Returns the slots of rows without images."""
        empty_BI = torch.zeros(batch_size, 0, dtype=torch.int64, device=device)
        return cls(numbers=empty_BI, n_tiles=empty_BI)

    @property
    def n_images(self) -> Int[Tensor, "B"]:
        """How many images each row has."""
        return (self.numbers >= 0).sum(1)

    def with_images(self, n_tiles: Int[Tensor, "B new"]) -> "ImageSlots":
        """Returns these slots and one more for each new image, which has 0 tiles if it is padding.
        """
        is_real = n_tiles > 0
        numbers = torch.where(is_real, self.n_images[:, None] + is_real.cumsum(1) - 1, -1)
        return ImageSlots(numbers=torch.cat([self.numbers, numbers], dim=1),
                          n_tiles=torch.cat([self.n_tiles, n_tiles], dim=1))

    def rows(self, rows: Sequence[int]) -> "ImageSlots":
        """Returns the slots of these rows."""
        return ImageSlots(numbers=self.numbers[rows], n_tiles=self.n_tiles[rows])

    def select(self, slots: Sequence[int]) -> "ImageSlots":
        """Returns only these slots, of every row."""
        return ImageSlots(numbers=self.numbers[:, slots], n_tiles=self.n_tiles[:, slots])


def image_token_mask(
    sees: Sight, slots: ImageSlots, *, max_tiles: int, n_tokens: int
) -> tuple[GivenMask, Bool[Tensor, "B T"]]:
    """Returns which image tokens each text token may attend to, and whether it sees any image.

    Image tokens come slot by slot, tile by tile: S = I * `max_tiles` * `n_tokens`. The tokens of
    unused tiles are hidden. A text token that sees no image may attend to all of them, because a
    softmax over nothing has no value; what it finds must then be multiplied by 0.
    """
    numbers_B1I = slots.numbers[:, None]
    seen_BTI = ((numbers_B1I >= sees.first[..., None]) & (numbers_B1I < sees.end[..., None])
                & (numbers_B1I >= 0))
    is_used_BIJ = torch.arange(max_tiles, device=slots.n_tiles.device) < slots.n_tiles[..., None]
    seen_BTIJ = seen_BTI[..., None] & is_used_BIJ[:, None]
    seen_BTS = seen_BTIJ[..., None].expand(*seen_BTIJ.shape, n_tokens).flatten(2)
    sees_image_BT = seen_BTI.any(-1)
    return GivenMask(mask=(seen_BTS | ~sees_image_BT[..., None])[:, None]), sees_image_BT
