"""What generation asks of the images of a batch, whatever a model's encoder makes of them.

Notebooks 22 and 24.
"""

import abc
import hashlib

import torch
from jaxtyping import Int, Shaped
from torch import Tensor


class ShownImages(abc.ABC):
    """The images of each row of a batch: cut into tiles, or encoded."""

    @property
    @abc.abstractmethod
    def n_images(self) -> Int[Tensor, "B"]:
        """Returns how many images each row has."""

    @abc.abstractmethod
    def after(self, n_images: int) -> "ShownImages":
        """Returns the images of each row without its first `n_images`; some must be left."""

    @abc.abstractmethod
    def digests(self) -> list[bytes]:
        """Returns a digest of the content of each image of the first row."""


def digest(kind: str, values: Shaped[Tensor, "..."]) -> bytes:
    """Returns a digest of the kind, the dtype and the bytes of a tensor."""
    data = values.detach().cpu().contiguous().view(torch.uint8).numpy()
    found = hashlib.sha256(f"{kind} {values.dtype} ".encode())
    found.update(data)
    return found.digest()
