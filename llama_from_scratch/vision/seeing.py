"""What every Llama that sees has in common: it is a text model, and its texts show images.

How a model looks at images is its own affair: through cross-attention (`adapter`), or as tokens of
its text (`early_fusion`). Generation, chats and caches need to know only what is here: how images
are cut and encoded, and which ids stand for them.

Notebooks 22 and 24.
"""

import abc
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.model.kv_cache import KVCache
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.vision.shown_images import ShownImages


class SeeingLlama(Llama, abc.ABC):
    """A text model that can be shown images; it has the very parts of the text model.

    A prompt has one id `config.image_id` in place of each image. `written_out` returns the ids that
    the model reads. Among these are some ids `place_id` for each image, which are its places: what
    the encoder finds is read there.

    `tiling`: how `cut` cuts images. `sees_before_images`: whether tokens before the first image
    depend on the images.
    """

    tiling: Any
    sees_before_images = False

    def _adopt(self, text: Llama, config: LlamaConfig) -> None:
        """Takes the parts of a text model over, in place of `Llama.__init__`."""
        nn.Module.__init__(self)
        for name, part in text.named_children():
            self.add_module(name, part)
        self.config, self._chunk_sizes = config, text._chunk_sizes

    # --- what generation asks -------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def place_id(self) -> int:
        """The id of a place of an image in the ids that the model reads."""

    @abc.abstractmethod
    def cut(
        self, rows: Sequence[Sequence[object]], *, transparency: str = "white"
    ) -> ShownImages:
        """Returns the images of each row of a batch, cut as this model's encoder expects.

        `rows`: for each row a list of images, also an empty one. An image is anything that
        `images.decoded` accepts, which also explains `transparency`.
        Raises ValueError if there is no image at all, or for one that is bad.
        """

    @abc.abstractmethod
    def encode(self, images: ShownImages) -> ShownImages:
        """Returns what the encoder makes of images that were cut for it."""

    @abc.abstractmethod
    def n_places(self, images: ShownImages) -> list[list[int]]:
        """Returns for each image of each row how many places it has."""

    @abc.abstractmethod
    def text_length(self, image: Any) -> int:
        """Returns how many ids of the text stand for a Pillow image, its places among them."""

    @abc.abstractmethod
    def written_out(
        self, prompts: Sequence[Sequence[int]], images: ShownImages
    ) -> list[list[int]]:
        """Returns the ids that the model reads for prompts with one id for each image.

        Images that a prompt already writes out stay as they are. Raises ValueError if a prompt has
        more images than its row, or fewer.
        """

    @abc.abstractmethod
    def refuse_unfit(self, images: ShownImages | Sequence, *, n_rows: int) -> None:
        """Raises ValueError unless the model can be shown these images of `n_rows` rows.

        Rows of images that are not cut yet are only counted.
        """

    @abc.abstractmethod
    def text_model(self) -> Llama:
        """Returns a plain `Llama` that has the very parts of this model's text model."""

    def _plain(self, layers: nn.ModuleList) -> Llama:
        """Returns a plain `Llama` with these layers and the other parts of this model's text."""
        text = Llama.__new__(Llama)
        nn.Module.__init__(text)
        text.config, text._chunk_sizes = self.config.text, self._chunk_sizes
        for name in ("tok_embeddings", "rope", "visibility", "layers", "norm", "output",
                     "next_logits"):
            text.add_module(name, layers if name == "layers" else getattr(self, name))
        return text.train(self.training)

    # --- the stages together --------------------------------------------------------------------

    def hidden(
        self, ids: Int[Tensor, "B T"], *, images: ShownImages | None = None,
        positions: Int[Tensor, "#B T"] | None = None, documents: Int[Tensor, "#B T"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Returns the residual stream after the last norm, as `Llama.hidden` does.

        `ids`: written out. `images`: for each row its images, cut or encoded, in the order of
        their places. With a `cache`, only images that it does not hold yet.
        Raises ValueError, in addition, for more images than places for them or fewer, and for
        images that were cut or encoded for another encoder.
        """
        return self.norm(self._residual_stream(ids, images=images, positions=positions,
                                               documents=documents, cache=cache))

    def forward(
        self, ids: Int[Tensor, "B T"], *, images: ShownImages | None = None,
        positions: Int[Tensor, "#B T"] | None = None, documents: Int[Tensor, "#B T"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Returns logits of the next token at every position, in fp32. Arguments as in `hidden`."""
        return self.head(self._residual_stream(ids, images=images, positions=positions,
                                               documents=documents, cache=cache))

    @abc.abstractmethod
    def _residual_stream(
        self, ids: Int[Tensor, "B T"], *, positions: Int[Tensor, "#B T"] | None,
        documents: Int[Tensor, "#B T"] | None, cache: KVCache | None,
        images: ShownImages | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Returns the residual stream after the last layer."""
