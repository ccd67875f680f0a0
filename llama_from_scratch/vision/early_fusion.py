"""Early fusion: the tokens of an image are among the tokens of the text.

The text has a run of patch ids for each tile of an image. Their embeddings are replaced by what the
encoder makes of the tiles, before the first layer. From there on, an image is text: its tokens have
positions, keys and values like all others, so the layers and the cache of the text model need no
change.

A prompt has one id `image` for each image. `FusionLlama.written_out` puts the ids of its tiles
there (`image_layout`), and `generate` does so by itself.

Letters: B batch, T tokens, D text width, n tokens of a tile. Notebook 24. Llama 4. Source:
llama-models, models/llama4/model.py and generation.py.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llama_from_scratch import foreign
from llama_from_scratch.config import FusionLlamaConfig, ImageIds, TileEncoderConfig
from llama_from_scratch.model.kv_cache import KVCache
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.vision import image_layout
from llama_from_scratch.vision.fusion_encoder import TileModel
from llama_from_scratch.vision.fusion_tiles import (
    EncodedGridImages,
    GridImages,
    grid_of,
    split_grids,
)
from llama_from_scratch.vision.image_layout import layout, n_tiles
from llama_from_scratch.vision.seeing import SeeingLlama
from llama_from_scratch.vision.shown_images import ShownImages
from llama_from_scratch.vision.tiles import GridTiling


class FusionLlama(SeeingLlama):
    """A text model that reads images as tokens. `fuse_vision` makes it; its parts are the text's.

    `tiling`: how `cut` cuts images for this model. A new one has the encoder's size; a checkpoint
    may have other colors.
    """

    def __init__(self, text: Llama, config: FusionLlamaConfig) -> None:
        self._adopt(text, config)
        self.tiling = GridTiling(size_px=config.vision.tile_px, max_tiles=config.vision.max_tiles)
        self.vision = TileModel(config.vision)

    def init_weights(self) -> None:
        """Draws all weights, the text model's too."""
        super().init_weights()
        self.vision.init_weights()

    # --- images ---------------------------------------------------------------------------------

    @property
    def place_id(self) -> int:
        return self.config.image_ids.patch

    def cut(
        self, rows: Sequence[Sequence[object]], *, transparency: str = "white"
    ) -> GridImages:
        return split_grids(rows, self.tiling, transparency=transparency)

    def encode(self, images: GridImages) -> EncodedGridImages:
        """Returns the vectors that take the places of the images in the text.

        Raises ValueError for tiles of another size than the encoder's.
        """
        return EncodedGridImages(states=self.vision(images.pixels.to(self.device)),
                                 grids=images.grids)

    def n_places(self, images: GridImages | EncodedGridImages) -> list[list[int]]:
        n_tokens = self.config.vision.n_tokens
        return [[n_tiles(grid) * n_tokens for grid in row] for row in images.grids]

    def text_length(self, image: Any) -> int:
        return len(layout(grid_of(image, self.tiling), ids=self.config.image_ids,
                          n_tokens=self.config.vision.n_tokens))

    def written_out(
        self, prompts: Sequence[Sequence[int]], images: GridImages | EncodedGridImages
    ) -> list[list[int]]:
        """Returns the prompts with each lone id `image` replaced by the ids of its image.

        Images that are written out already stay. Raises ValueError if a prompt has more images than
        its row, or fewer.
        """
        return [image_layout.written_out(prompt, grids, ids=self.config.image_ids, number=b,
                                         n_tokens=self.config.vision.n_tokens)
                for b, (prompt, grids) in enumerate(zip(prompts, images.grids, strict=True))]

    def refuse_unfit(self, images: ShownImages | Sequence, *, n_rows: int) -> None:
        vision = self.config.vision
        if isinstance(images, GridImages):
            if images.pixels.shape[-1] != vision.tile_px:
                raise ValueError(f"the tiles of images must have edges of {vision.tile_px} pixels "
                                 f"for this encoder; got {images.pixels.shape[-1]}. Cut them for "
                                 "this model: model.cut(rows)")
        elif isinstance(images, EncodedGridImages):
            expected = vision.n_tokens, self.config.dim
            if images.states.ndim != 3 or tuple(images.states.shape[1:]) != expected:
                raise ValueError("the states of images must be (tiles, n, D) with the last two "
                                 f"{expected}; got {tuple(images.states.shape)}. Encode them with "
                                 "this model")
        elif isinstance(images, ShownImages) or not isinstance(images, Sequence):
            raise ValueError("this model reads images as tokens of its text, so they are cut by "
                             f"model.cut(rows); got {foreign.shown(images)}")
        n_given = len(images if isinstance(images, Sequence) else images.grids)
        if n_given != n_rows:
            raise ValueError("images are given for each row of a batch; got "
                             f"{n_rows} rows of ids and {n_given} rows of images. Give an empty "
                             "list for a row without images: [[image], []]")

    def text_model(self) -> Llama:
        return self._plain(self.layers)

    # --- the stages -----------------------------------------------------------------------------

    def embed(
        self, ids: Int[Tensor, "B T"], *, images: GridImages | EncodedGridImages | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns the row of each id, and what the encoder found in the places of `images`.

        Without images, patch ids are looked up like all others.
        Raises ValueError, in addition to what `Llama.embed` refuses, unless each row has as many
        patch ids as its images have tokens.
        """
        x = super().embed(ids)
        if images is None:
            return x
        if not torch.compiler.is_compiling():
            self.refuse_unfit(images, n_rows=len(ids))
            self._refuse_other_counts(ids, [sum(row) for row in self.n_places(images)])
        encoded = self.encode(images) if isinstance(images, GridImages) else images
        is_place_BT1 = (ids == self.place_id)[..., None]
        return x.masked_scatter(is_place_BT1, encoded.states.to(x.dtype))

    def _residual_stream(
        self, ids: Int[Tensor, "B T"], *, positions: Int[Tensor, "#B T"] | None,
        documents: Int[Tensor, "#B T"] | None, cache: KVCache | None,
        images: GridImages | EncodedGridImages | None = None,
    ) -> Float[Tensor, "B T D"]:
        x = self.embed(ids, images=images)
        # One id after a cache is a step of decoding: a patch id there was written by the model.
        is_step = cache is not None and cache.length > 0 and ids.shape[1] == 1
        if images is None and not is_step and not torch.compiler.is_compiling():
            self._refuse_other_counts(ids, [0] * len(ids))
        inputs = self.prepare(x, positions=positions, documents=documents, cache=cache)
        return self.run(x, inputs, cache=cache)

    def _refuse_other_counts(self, ids: Int[Tensor, "B T"], n_vectors: list[int]) -> None:
        n_ids = (ids == self.place_id).sum(1).tolist()
        for row, (n_places, n) in enumerate(zip(n_ids, n_vectors, strict=True)):
            if n_places != n:
                raise ValueError(f"each token of an image takes the place of one id "
                                 f"{self.place_id}; row {row} has {n_places} of these ids, and "
                                 f"its images have {n} tokens. Write the images out with "
                                 "model.written_out(prompts, images)")


def fuse_vision(model: nn.Module, vision: TileEncoderConfig, *, image_ids: ImageIds) -> FusionLlama:
    """Returns a model that sees: the parts of `model`, and an encoder whose tokens it reads.

    The text's parts are not copied, and `model` itself stays as it was. The encoder gets fresh
    weights from torch's global generator, on the device and in the dtype of `model`.
    `vision.detach` takes it off again.
    Raises ValueError if a part of `model` is not as its config describes it, or sees already, or if
    the encoder is for another width.
    """
    if not isinstance(model, Llama):
        raise ValueError("an encoder is fused with a Llama; got "
                         f"{foreign.shown(model)}. Load one first: llama.load(PATH)")
    if isinstance(model, SeeingLlama):
        raise ValueError("this model has an encoder already. Take it off first: detach(model)")
    fused = FusionLlama(model, FusionLlamaConfig.seeing(model.config, vision=vision,
                                                        image_ids=image_ids))
    fused.vision.to(device=model.device, dtype=model.dtype)
    return fused.train(model.training)
