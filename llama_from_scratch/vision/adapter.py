"""Attaches a vision encoder to a finished text model, and takes it off again.

The attached model has the very parts of the text model, and a cross-attention block before each of
some layers. Images go through the encoder once and become states that those blocks look at. Without
images, the attached model computes exactly what the text model computes.

Notebook 22. Llama 3.2 Vision. Source: The Llama 3 Herd of Models, arXiv:2407.21783, section 7.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from llama_from_scratch import foreign
from llama_from_scratch.config import VisionConfig, VisionLlamaConfig, record
from llama_from_scratch.model.init import init_linear
from llama_from_scratch.model.inputs import BlockInputs, ImageInputs
from llama_from_scratch.model.kv_cache import KVCache
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.vision.cross_attention import CrossBlock, SeeingBlock
from llama_from_scratch.vision.encoder import VisionModel
from llama_from_scratch.vision.image_cache import VisionKVCache
from llama_from_scratch.vision.image_mask import (
    Before,
    ImageSlots,
    image_token_mask,
    nothing_before,
    sight,
)
from llama_from_scratch.vision.seeing import SeeingLlama
from llama_from_scratch.vision.shown_images import ShownImages, digest
from llama_from_scratch.vision.tables import expanded, shared
from llama_from_scratch.vision.tiles import TiledImages, Tiling, split


@record
class EncodedImages(ShownImages):
    """The images of a batch as cross-attention looks at them. Row b has its images first.

    `states`: of each token of each tile. `n_tiles`: that each image uses; 0 marks padding.
    """

    states: Float[Tensor, "B I J n D"]
    n_tiles: Int[Tensor, "B I"]

    @property
    def n_images(self) -> Int[Tensor, "B"]:
        """Returns how many images each row has."""
        return (self.n_tiles > 0).sum(1)

    def after(self, n_images: int) -> "EncodedImages":
        """Returns the images of each row without its first `n_images`."""
        return EncodedImages(states=self.states[:, n_images:], n_tiles=self.n_tiles[:, n_images:])

    def digests(self) -> list[bytes]:
        """Returns a digest of each image of the first row, from its states."""
        return [digest(f"states of {n} tiles", states)
                for n, states in zip(self.n_tiles[0].tolist(), self.states[0], strict=True) if n]

    def rows(self, rows: Sequence[int] | Int[Tensor, "rows"]) -> "EncodedImages":
        """Returns these rows; a row may come several times, such as for several questions."""
        return EncodedImages(states=self.states[rows], n_tiles=self.n_tiles[rows])


class VisionLlama(SeeingLlama):
    """A text model with a vision encoder attached. `attach` makes it; its parts are the text's own.

    `tiling`: how `vision.split` must cut the images of this model. A new one is the encoder's size
    with the released colors; a checkpoint may have others.
    `sees_before_images`: what a token before the first image does. False: it stays as it is, as in
    Meta's code. True: it attends to all image tokens of its row, padding included, and only its
    feed-forward is left out, as in transformers (seen in 4.46.3 and 5.24.0).
    """

    cache_type = VisionKVCache

    def __init__(self, text: Llama, config: VisionLlamaConfig) -> None:
        self._adopt(text, config)
        self.sees_before_images = False
        self.tiling = Tiling(size_px=config.vision.tile_px, max_tiles=config.vision.max_tiles)
        self.layers = nn.ModuleList(
            SeeingBlock(block, config) if i in config.cross_layers else block
            for i, block in enumerate(text.layers))
        self.image_embeddings = nn.Embedding(config.n_image_ids, config.dim)
        self.vision = VisionModel(config.vision)
        self.init_adapter()

    def init_adapter(self) -> None:
        """Draws fresh weights for all that is not the text model's. All gates begin closed."""
        init_linear(self.image_embeddings)
        self.vision.init_weights()
        for cross in self.cross_blocks:
            # The gates keep the stream from growing, so no result needs to be small as well.
            cross.init_weights(n_additions=1)

    @property
    def cross_blocks(self) -> list[CrossBlock]:
        """The blocks of cross-attention, in the order of their layers."""
        return [block.cross for block in self.layers if isinstance(block, SeeingBlock)]

    def init_weights(self) -> None:
        """Draws all weights, the text model's too."""
        super().init_weights()
        self.init_adapter()

    def look_up(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Returns the row of each id; ids after the vocabulary have a table of their own."""
        n_text = self.config.vocab_size
        is_text_BT = ids < n_text
        text_BTD = self.tok_embeddings(torch.where(is_text_BT, ids, 0))
        image_BTD = self.image_embeddings(torch.where(is_text_BT, 0, ids - n_text))
        return torch.where(is_text_BT[..., None], text_BTD, image_BTD)

    # --- images ---------------------------------------------------------------------------------

    @property
    def place_id(self) -> int:
        return self.config.image_id

    def cut(
        self, rows: Sequence[Sequence[object]], *, transparency: str = "white"
    ) -> TiledImages:
        return split(rows, self.tiling, transparency=transparency)

    def n_places(self, images: TiledImages | EncodedImages) -> list[list[int]]:
        return [[1] * n for n in images.n_images.tolist()]

    def text_length(self, image: Any) -> int:
        return 1

    def written_out(
        self, prompts: Sequence[Sequence[int]], images: TiledImages | EncodedImages
    ) -> list[list[int]]:
        """Returns the prompts as they are: one id stands for an image."""
        return [list(prompt) for prompt in prompts]

    def refuse_unfit(self, images: ShownImages | Sequence, *, n_rows: int) -> None:
        refuse_unfit_images(images, self.config, n_rows=n_rows)

    def text_model(self) -> Llama:
        return self._plain(nn.ModuleList(
            block.without_cross() if isinstance(block, SeeingBlock) else block
            for block in self.layers))

    def encode(self, images: TiledImages) -> EncodedImages:
        """Returns what cross-attention looks at. Images of padding are not computed.

        Raises ValueError for tiles of another size or number than the encoder's.
        """
        ids_N = images.aspect_ids.flatten().to(self.device)
        pixels = images.pixels.flatten(0, 1).to(self.device)
        n_tiles_N = torch.where(ids_N > 0, self.vision.encoder.n_tiles[ids_N], 0)
        if torch.compiler.is_compiling() or self.sees_before_images or bool((ids_N > 0).all()):
            states = self.vision(pixels, ids_N)
        else:
            real = ids_N.nonzero().squeeze(1)
            found = self.vision(pixels[real], ids_N[real])
            states = found.new_zeros(len(ids_N), *found.shape[1:]).index_copy(0, real, found)
        shape = images.aspect_ids.shape
        return EncodedImages(states=states.unflatten(0, shape), n_tiles=n_tiles_N.view(shape))

    def prepare(
        self, x: Float[Tensor, "B T D"], *, is_image: Bool[Tensor, "B T"] | None = None,
        images: EncodedImages | None = None, positions: Int[Tensor, "#B T"] | None = None,
        documents: Int[Tensor, "#B T"] | None = None, cache: KVCache | None = None,
    ) -> BlockInputs:
        """Returns what all blocks need in addition to x, as `Llama.prepare` does.

        `is_image`: which tokens stand for an image; None if none does. `images`: those that are not
        in the cache yet. Errors as in `hidden`.
        """
        if is_image is None:
            is_image = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        if cache is not None:
            cache.refuse_other(self.config)
        has_images = images is not None or (cache is not None and cache.has_images)
        before = nothing_before(len(x), device=x.device) if cache is None else cache.before
        if not torch.compiler.is_compiling():
            _refuse_other_images(is_image, images, cache, before=before, config=self.config)
        inputs = super().prepare(x, positions=positions, documents=documents, cache=cache)
        if not has_images:
            return inputs
        sees = sight(is_image, before=before, documents=documents)
        slots = ImageSlots.none(len(x), device=x.device) if cache is None else cache.slots
        if images is not None:
            slots = slots.with_images(images.n_tiles)
        if cache is not None:
            cache.slots = slots
            cache.add_sight(sees)
        visible, sees_image_BT = image_token_mask(
            sees, slots, max_tiles=self.config.vision.max_tiles,
            n_tokens=self.config.vision.n_tokens)
        return dataclasses.replace(inputs, images=ImageInputs(
            states=None if images is None else images.states.flatten(1, 3), visible=visible,
            sees_image=sees_image_BT, is_blind=not self.sees_before_images))

    def _residual_stream(
        self, ids: Int[Tensor, "B T"], *, positions: Int[Tensor, "#B T"] | None,
        documents: Int[Tensor, "#B T"] | None, cache: KVCache | None,
        images: TiledImages | EncodedImages | None = None,
    ) -> Float[Tensor, "B T D"]:
        x = self.embed(ids)
        encoded = self.encode(images) if isinstance(images, TiledImages) else images
        inputs = self.prepare(x, is_image=ids == self.config.image_id, images=encoded,
                              positions=positions, documents=documents, cache=cache)
        return self.run(x, inputs, cache=cache)


def attach(
    model: nn.Module, vision: VisionConfig, *, cross_layers: Sequence[int] | None = None,
    image_id: int | None = None, n_image_ids: int = 8,
) -> VisionLlama:
    """Returns a model that sees: the parts of `model`, an encoder, and cross-attention blocks.

    The text's parts are not copied, and `model` itself stays as it was. `cross_layers`: the text
    layers with a block before them, by default `usual_cross_layers`. `image_id`: by default the
    first id after the vocabulary. What is new gets fresh weights from torch's global generator, on
    the device and in the dtype of `model`. Its gates are closed.
    Raises ValueError if a part of `model` is not as its config describes it, or is attached to an
    encoder already, or if the encoder is for another width.
    """
    if not isinstance(model, Llama):
        raise ValueError("an encoder is attached to a Llama; got "
                         f"{foreign.shown(model)}. Load one first: llama.load(PATH)")
    if isinstance(model, SeeingLlama):
        raise ValueError("this model has an encoder already. Take it off first: detach(model)")
    config = model.config
    attached = VisionLlama(model, VisionLlamaConfig.seeing(
        config, vision=vision, n_image_ids=n_image_ids,
        cross_layers=usual_cross_layers(config.n_layers) if cross_layers is None
        else tuple(cross_layers),
        image_id=config.vocab_size if image_id is None else image_id))
    for part in (attached.image_embeddings, attached.vision, *attached.cross_blocks):
        part.to(device=model.device, dtype=model.dtype)
    return attached.train(model.training)


def detach(model: nn.Module) -> Llama:
    """Returns the text model of one that sees: a plain `Llama` that has its very parts."""
    if not isinstance(model, SeeingLlama):
        raise ValueError(f"only a model that sees can be detached; got {foreign.shown(model)}. "
                         "A plain Llama has nothing to take off")
    return model.text_model()


@torch.no_grad()
def share_places(model: VisionLlama) -> None:
    """Gives each place in the grid of tiles one entry, the mean over the canvases that have it.

    Afterward Meta's layout can hold the tables (`vision.tables`). Where the canvases differ, this
    changes what the model computes.
    """
    for rows, grid in model.vision.encoder.tables():
        rows.copy_(expanded(shared(rows, grid), grid))


def usual_cross_layers(n_layers: int) -> tuple[int, ...]:
    """Returns every fourth layer, counted back from the last: what the released models have."""
    return tuple(reversed(range(n_layers - 1, -1, -4)))


def refuse_unfit_images(
    images: ShownImages | Sequence, config: VisionLlamaConfig, *, n_rows: int
) -> None:
    """Raises ValueError unless a model of `config` can be shown these images of `n_rows` rows.

    Rows of images that are not cut yet are only counted.
    """
    vision = config.vision
    if isinstance(images, TiledImages):
        expected = vision.max_tiles, 3, vision.tile_px, vision.tile_px
        if tuple(images.pixels.shape[2:]) != expected:
            raise ValueError("the tiles of images must be (B, I, J, 3, px, px) with the last four "
                             f"{expected} for this encoder; got {tuple(images.pixels.shape)}. Cut "
                             "them for this model: vision.split(rows, model.tiling)")
    elif isinstance(images, EncodedImages):
        expected = vision.max_tiles, vision.n_tokens, config.dim
        if images.states.ndim != 5 or tuple(images.states.shape[2:]) != expected:
            raise ValueError("the states of images must be (B, I, J, n, D) with the last three "
                             f"{expected}; got {tuple(images.states.shape)}. Encode them with "
                             "this model")
    elif isinstance(images, ShownImages):
        raise ValueError("this model looks at images through cross-attention, so they are cut by "
                         f"model.cut(rows); got {foreign.shown(images)}")
    n_given = len(images if isinstance(images, Sequence) else images.n_tiles)
    if n_given != n_rows:
        raise ValueError(f"images are given for each row of a batch; got {n_rows} rows of ids and "
                         f"{n_given} rows of images. Give an empty list for a row without images: "
                         "[[image], []]")


def _refuse_other_images(
    is_image: Bool[Tensor, "B T"], images: EncodedImages | None, cache: KVCache | None, *,
    before: Before, config: VisionLlamaConfig,
) -> None:
    n_new_B = torch.zeros_like(is_image[:, 0], dtype=torch.int64)
    if images is not None:
        if not isinstance(images, EncodedImages):
            raise ValueError("images are given as tiles or encoded, as vision.split or "
                             f"model.encode returns them; got {foreign.shown(images)}. Cut the "
                             "images of each row first: vision.split(rows, model.tiling)")
        refuse_unfit_images(images, config, n_rows=len(is_image))
        n_new_B = images.n_images
    n_tokens_B = is_image.sum(1)
    if cache is None:
        n_images_B, is_wrong_B = n_new_B, n_tokens_B != n_new_B
    else:
        n_tokens_B = n_tokens_B + before.end[:, 0]
        n_images_B = cache.slots.n_images + n_new_B
        is_wrong_B = n_tokens_B > n_images_B
    if is_wrong_B.any():
        row = int(is_wrong_B.nonzero()[0])
        n_tokens, n_images = int(n_tokens_B[row]), int(n_images_B[row])
        raise ValueError(f"each image needs one id {config.image_id} in the text that stands for "
                         f"it; row {row} has {n_tokens} of these ids and {n_images} images. Give "
                         "as many images as ids for them")
