"""The vision encoder of Llama 3.2: tiles of an image -> states that a text model can attend to.

Each tile is cut into patches, and each patch becomes a vector. A transformer without gates reads
all tiles of an image together, then a second, gated one does. The result of a token is its last
state, followed by states from earlier layers, which keep fine detail that the last state lacks. The
projector turns it into a vector as wide as the text model.

Letters: I images, J tiles of an image, P patches of a tile, W vision width, D text width, T tokens
of an image. A tile has n = P + 1 tokens: its class token and then its patches, row by row.

Every image has room for J = `max_tiles` tiles. Unused tiles must be zero, as `vision.tiles` gives
them. Their tokens are hidden only from each other. Real tokens do attend to them, and to the
padding of each tile. The released weights were trained this way, so we do the same.

Intermediate states: we take the state that *enters* each named layer, as Meta's code does, and as
transformers did until 4.54.1. From 4.57.1 on (last seen in 5.24.0) transformers takes the state
that leaves it, one layer later. To compare with these releases, subtract 1 from each number there.

One `norm_eps` serves all norms. The released encoders have 1e-5 in each of them, and transformers
has no other value for the two norms outside of the layers.

Notebook 21. Llama 3.2 Vision. Sources: The Llama 3 Herd of Models, arXiv:2407.21783, section 7.1;
llama-models, models/llama3/multimodal/model.py; Dosovitskiy et al., arXiv:2010.11929 (ViT).
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from llama_from_scratch.config import TileEncoderConfig, VisionConfig, record
from llama_from_scratch.model.attention import SoftmaxAttention
from llama_from_scratch.model.init import init_linear
from llama_from_scratch.model.mask import Everything, GivenMask
from llama_from_scratch.vision.tables import Grid

N_COLORS = 3
"""C: red, green and blue."""

TOKEN_MULTIPLE = 8
"""The tokens of each tile are padded to a multiple of this."""


def patches(
    pixels: Float[Tensor, "*tiles C px px"], *, patch_px: int
) -> Float[Tensor, "*tiles P color_row_column"]:
    """Returns the pixels of each patch as one vector, in the order color, row, column.

    Patches follow each other row by row.
    """
    *tiles, C, px, _ = pixels.shape
    n = px // patch_px
    cut = pixels.view(*tiles, C, n, patch_px, n, patch_px)  # color, row of patches, row, ...
    return cut.movedim((-4, -2), (-5, -4)).reshape(*tiles, n * n, C * patch_px**2)


def who_sees_whom(
    n_tiles: Int[Tensor, "I"], *, max_tiles: int, n_tokens: int, n_padded: int
) -> GivenMask:
    """Returns False only where both tokens are empty: in an unused tile, or padding of a tile.

    Each of `max_tiles` tiles has `n_tokens` tokens and is padded to `n_padded`. The mask is
    (I, 1, T, T) for the T = max_tiles * n_padded tokens of an image.
    """
    device = n_tiles.device
    is_unused_IJ = torch.arange(max_tiles, device=device) >= n_tiles[:, None]
    is_padding_n = torch.arange(n_padded, device=device) >= n_tokens
    is_empty_IT = (is_unused_IJ[:, :, None] | is_padding_n).flatten(1)
    mask_ITT = ~(is_empty_IT[:, :, None] & is_empty_IT[:, None, :])
    return GivenMask(mask=mask_ITT[:, None])


@record
class EmptyTokens:
    """Images with equally many tiles, and which of their tokens are empty.

    `images`: their numbers in the batch. `real`, `empty`: the tokens of an image.
    """

    images: Int[Tensor, "images"]
    real: Int[Tensor, "real"]
    empty: Int[Tensor, "empty"]


@record
class TileTokens:
    """Who sees whom in a batch, as a rule. The fields are the arguments of `who_sees_whom`.

    `mask` and `groups` are two forms of the rule, each computed at its first use and kept.
    """

    n_tiles: Int[Tensor, "I"]
    max_tiles: int
    n_tokens: int
    n_padded: int

    def __post_init__(self) -> None:
        # Not functools.cached_property, whose lock torch.compile cannot trace.
        object.__setattr__(self, "_kept", {})

    @property
    def mask(self) -> Bool[Tensor, "I 1 T T"]:
        if "mask" not in self._kept:
            self._kept["mask"] = who_sees_whom(
                self.n_tiles, max_tiles=self.max_tiles, n_tokens=self.n_tokens,
                n_padded=self.n_padded).mask
        return self._kept["mask"]

    @property
    def groups(self) -> list[EmptyTokens]:
        """The images by their number of tiles. It depends on values, so it cannot be compiled."""
        if "groups" not in self._kept:
            self._kept["groups"] = [self._group(n) for n in self.n_tiles.unique().tolist()]
        return self._kept["groups"]

    def _group(self, n_tiles: int) -> EmptyTokens:
        at_T = torch.arange(self.max_tiles * self.n_padded, device=self.n_tiles.device)
        is_real_T = (at_T < n_tiles * self.n_padded) & (at_T % self.n_padded < self.n_tokens)
        return EmptyTokens(images=(self.n_tiles == n_tiles).nonzero().flatten(),
                           real=is_real_T.nonzero().flatten(),
                           empty=(~is_real_T).nonzero().flatten())


def attend_by_group(
    attend: nn.Module, q: Float[Tensor, "I T H K"], k: Float[Tensor, "I T H K"],
    v: Float[Tensor, "I T H K"], groups: list[EmptyTokens],
) -> Float[Tensor, "I T H K"]:
    """Returns what attention with the mask of `who_sees_whom` returns, computed without a mask.

    Real tokens see all tokens, and empty tokens see the real ones: two products without a mask.
    They are faster, and the mask would be large: 165 MB in fp32 for an image of the 11B.
    """
    if not groups:
        return torch.zeros_like(q)  # no images at all
    found = []
    for group in groups:
        q_i, k_i, v_i = (x[group.images] for x in (q, k, v))
        of_real = attend(q_i[:, group.real], k_i, v_i, Everything())
        if not len(group.empty):
            found.append(of_real)
            continue
        of_empty = attend(q_i[:, group.empty], k_i[:, group.real], v_i[:, group.real], Everything())
        order = torch.cat([group.real, group.empty]).argsort()
        found.append(torch.cat([of_real, of_empty], dim=1)[:, order])
    return torch.cat(found)[torch.cat([group.images for group in groups]).argsort()]


def interleaved(states: list[Float[Tensor, "I T W"]]) -> Float[Tensor, "I T features"]:
    """Returns n states side by side, channel by channel: feature w * n + i is channel w of state i.

    The released projectors expect this order.
    """
    return torch.stack(states, dim=-1).flatten(-2)


class Gate(nn.Module):
    """tanh(weight) * x, with one learned number, 0 at the start.

    What is behind a closed gate changes nothing, and training opens it as far as is useful.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1))

    def forward(self, x: Float[Tensor, "*batch W"]) -> Float[Tensor, "*batch W"]:
        return torch.tanh(self.weight) * x

    def init_weights(self) -> None:
        """Closes the gate."""
        nn.init.zeros_(self.weight)


class PatchEmbedding(nn.Module):
    """One matrix for all patches, without a bias: the same as a convolution without overlap."""

    def __init__(self, config: VisionConfig | TileEncoderConfig) -> None:
        super().__init__()
        self.patch_px = config.patch_px
        self.linear = nn.Linear(N_COLORS * config.patch_px**2, config.dim, bias=False)

    def forward(self, pixels: Float[Tensor, "*tiles C px px"]) -> Float[Tensor, "*tiles P W"]:
        """Pixels are converted to the dtype of the weights."""
        return self.linear(patches(pixels.to(self.linear.weight.dtype), patch_px=self.patch_px))

    def init_weights(self) -> None:
        """Draws fresh weights (`model.init`)."""
        init_linear(self.linear)


class TileEmbedding(nn.Module):
    """Adds a gated vector to all tokens of a tile, which says where in its canvas the tile is.

    The table has a row for each aspect ratio id, with the vectors of its J tiles.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.shape = config.max_tiles, 1, config.dim
        self.table = nn.Embedding(len(config.n_tiles), math.prod(self.shape))
        self.gate = Gate()

    def forward(
        self, x: Float[Tensor, "I J n W"], aspect_ids: Int[Tensor, "I"]
    ) -> Float[Tensor, "I J n W"]:
        tile_IJ1W = self.table(aspect_ids).unflatten(-1, self.shape)
        return x + self.gate(tile_IJ1W)

    def init_weights(self) -> None:
        """Draws vectors with a length of about 1 and closes the gate."""
        nn.init.normal_(self.table.weight, std=self.shape[-1]**-0.5)
        self.gate.init_weights()


class PositionEmbedding(nn.Module):
    """Adds to each token a vector for its place in its tile and one for its place in the canvas.

    One gate mixes both: (1 - s) * place in the tile + s * place in the canvas, with s = tanh(gate).
    So the encoder of single tiles, which was trained first, is unchanged while the gate is closed.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.shape = config.max_tiles, config.n_tokens, config.dim
        self.in_tile = nn.Parameter(torch.empty(config.n_tokens, config.dim))
        self.in_canvas = nn.Embedding(len(config.n_tiles), math.prod(self.shape))
        self.gate = Gate()

    def forward(
        self, x: Float[Tensor, "I J n W"], aspect_ids: Int[Tensor, "I"]
    ) -> Float[Tensor, "I J n W"]:
        in_canvas_IJnW = self.in_canvas(aspect_ids).unflatten(-1, self.shape)
        return x + self.in_tile - self.gate(self.in_tile) + self.gate(in_canvas_IJnW)

    def init_weights(self) -> None:
        """Draws vectors with a length of about 1 and closes the gate."""
        for vectors in (self.in_tile, self.in_canvas.weight):
            nn.init.normal_(vectors, std=self.shape[-1]**-0.5)
        self.gate.init_weights()


class VisionAttention(nn.Module):
    """Multi-head attention among the tokens of an image; no biases, no RoPE, no cache."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.heads = config.n_heads, config.head_dim
        self.wq = nn.Linear(config.dim, config.dim, bias=False)
        self.wk = nn.Linear(config.dim, config.dim, bias=False)
        self.wv = nn.Linear(config.dim, config.dim, bias=False)
        self.wo = nn.Linear(config.dim, config.dim, bias=False)
        self.attend = SoftmaxAttention()

    def forward(
        self, x: Float[Tensor, "I T W"], visible: GivenMask | TileTokens
    ) -> Float[Tensor, "I T W"]:
        q = self.wq(x).unflatten(-1, self.heads)
        k = self.wk(x).unflatten(-1, self.heads)
        v = self.wv(x).unflatten(-1, self.heads)
        if isinstance(visible, GivenMask) or torch.compiler.is_compiling():
            found = self.attend(q, k, v, GivenMask(mask=visible.mask))
        else:
            found = attend_by_group(self.attend, q, k, v, visible.groups)
        return self.wo(found.flatten(-2))

    def init_weights(self, *, n_additions: int) -> None:
        """Draws fresh weights; the stream receives `n_additions` results (`model.init`)."""
        for w in (self.wq, self.wk, self.wv):
            init_linear(w)
        init_linear(self.wo, n_additions=n_additions)


class VisionFeedForward(nn.Module):
    """w_down(gelu(w_up x)), token by token, with biases. GELU is the exact one, with erf."""

    def __init__(self, config: VisionConfig | TileEncoderConfig) -> None:
        super().__init__()
        self.w_up = nn.Linear(config.dim, config.ffn_dim)
        self.w_down = nn.Linear(config.ffn_dim, config.dim)
        self.activation = nn.GELU()

    def forward(self, x: Float[Tensor, "*batch W"]) -> Float[Tensor, "*batch W"]:
        return self.w_down(self.activation(self.w_up(x)))

    def init_weights(self, *, n_additions: int) -> None:
        """Draws fresh weights; the stream receives `n_additions` results (`model.init`)."""
        init_linear(self.w_up)
        init_linear(self.w_down, n_additions=n_additions)


class VisionBlock(nn.Module):
    """One layer: x + attention(norm(x)), then x + feed_forward(norm(x)).

    With `is_gated`, each of the two is multiplied by its gate before it is added.
    """

    def __init__(self, config: VisionConfig, *, is_gated: bool) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.attention = VisionAttention(config)
        self.attention_gate = Gate() if is_gated else nn.Identity()
        self.ffn_norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.feed_forward = VisionFeedForward(config)
        self.ffn_gate = Gate() if is_gated else nn.Identity()

    def forward(
        self, x: Float[Tensor, "I T W"], visible: GivenMask | TileTokens
    ) -> Float[Tensor, "I T W"]:
        x = x + self.attention_gate(self.attention(self.attention_norm(x), visible))
        return x + self.ffn_gate(self.feed_forward(self.ffn_norm(x)))

    def init_weights(self, *, n_additions: int) -> None:
        """Draws fresh weights; the stream receives `n_additions` results (`model.init`)."""
        for norm in (self.attention_norm, self.ffn_norm):
            norm.reset_parameters()
        self.attention.init_weights(n_additions=n_additions)
        self.feed_forward.init_weights(n_additions=n_additions)
        for gate in (self.attention_gate, self.ffn_gate):
            if isinstance(gate, Gate):
                gate.init_weights()


class VisionEncoder(nn.Module):
    """Tiles -> the last state of each token, followed by its intermediate states.

    Weights come from torch's global generator: seed it first. All gates begin closed.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("n_tiles", torch.tensor(config.n_tiles), persistent=False)
        self.patch_embedding = PatchEmbedding(config)
        self.tiles_before = TileEmbedding(config)
        self.class_token = nn.Parameter(torch.empty(config.dim))
        self.positions = PositionEmbedding(config)
        self.norm_before = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.local_layers = nn.ModuleList(
            VisionBlock(config, is_gated=False) for _ in range(config.n_local_layers))
        self.norm_after = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.tiles_after = TileEmbedding(config)
        self.global_layers = nn.ModuleList(
            VisionBlock(config, is_gated=True) for _ in range(config.n_global_layers))
        self.init_weights()

    def init_weights(self) -> None:
        """Draws all weights; the size of each matrix follows the rule in `model.init`."""
        nn.init.normal_(self.class_token, std=self.config.dim**-0.5)
        for part in (self.patch_embedding, self.tiles_before, self.positions, self.tiles_after):
            part.init_weights()
        for norm in (self.norm_before, self.norm_after):
            norm.reset_parameters()
        layers = (*self.local_layers, *self.global_layers)
        for block in layers:
            block.init_weights(n_additions=2 * len(layers))

    def tables(self) -> list[tuple[nn.Parameter, Grid]]:
        """Returns the three tables of places, and the grid of each (`vision.tables`)."""
        parts = ((self.tiles_before.table, 1), (self.positions.in_canvas, self.config.n_tokens),
                 (self.tiles_after.table, 1))
        config = self.config
        return [(part.weight, Grid(aspect_ratios=config.aspect_ratios, max_tiles=config.max_tiles,
                                   n_entries=n, width=config.dim)) for part, n in parts]

    # --- the stages ---------------------------------------------------------------------------

    def embed(
        self, pixels: Float[Tensor, "I J C px px"], aspect_ids: Int[Tensor, "I"]
    ) -> Float[Tensor, "I J n W"]:
        """Returns the first state of each token: its patch, its tile and its place, normed.

        Errors as in `forward`.
        """
        self._refuse_other_images(pixels, aspect_ids)
        x_IJPW = self.patch_embedding(pixels)
        try:
            x_IJPW = self.tiles_before(x_IJPW, aspect_ids)
        except IndexError:
            raise ValueError("aspect ratio ids of this encoder run from 0 to "
                             f"{len(self.config.aspect_ratios)}; got {aspect_ids.tolist()}. "
                             "Cut the image with the encoder's own config") from None
        return self.norm_before(self.positions(self.with_class_token(x_IJPW), aspect_ids))

    def with_class_token(self, x: Float[Tensor, "I J P W"]) -> Float[Tensor, "I J P+1 W"]:
        """Returns the tokens of each tile, with the class token before its patches."""
        return torch.cat([self.class_token.expand(*x.shape[:2], 1, -1), x], dim=2)

    def run_local(
        self, x: Float[Tensor, "I T W"], visible: GivenMask | TileTokens
    ) -> tuple[Float[Tensor, "I T W"], list[Float[Tensor, "I T W"]]]:
        """Returns the state after all local layers, and the states that entered some of them."""
        entering = []
        for i, block in enumerate(self.local_layers):
            if i in self.config.intermediate_layers:
                entering.append(x)
            x = block(x, visible)
        return x, entering

    def forward(
        self, pixels: Float[Tensor, "I J C px px"], aspect_ids: Int[Tensor, "I"]
    ) -> Float[Tensor, "I J n features"]:
        """Returns the states of each token of each tile, its class token first.

        `pixels`: J = `max_tiles` tiles for each image. Unused ones must be zero, because the others
        attend to them. `aspect_ids`: of each image; the id also decides which tiles are used.
        An image of padding has id 0. The first W features are the last state. The rest are the
        intermediate states, `interleaved`.
        Raises ValueError for pixels of another shape and, on a CPU, for ids that the config does
        not have. (A GPU checks ids later; PyTorch then reports a device-side assert.)
        """
        x_IJnW = self.embed(pixels, aspect_ids)
        J, n = x_IJnW.shape[1:3]
        n_padded = n + -n % TOKEN_MULTIPLE
        visible = TileTokens(n_tiles=self.n_tiles[aspect_ids], max_tiles=J, n_tokens=n,
                             n_padded=n_padded)
        x_ITW = F.pad(x_IJnW, (0, 0, 0, n_padded - n)).flatten(1, 2)
        x_ITW, entering = self.run_local(x_ITW, visible)
        x_IJnW = self.norm_after(x_ITW).unflatten(1, (J, n_padded))
        x_ITW = self.tiles_after(x_IJnW, aspect_ids).flatten(1, 2)
        for block in self.global_layers:
            x_ITW = block(x_ITW, visible)
        states = torch.cat([x_ITW, interleaved(entering)], dim=-1)
        return states.unflatten(1, (J, n_padded))[:, :, :n]

    def _refuse_other_images(self, pixels: Tensor, ids: Tensor) -> None:
        config = self.config
        expected = (config.max_tiles, N_COLORS, config.tile_px, config.tile_px)
        if pixels.ndim != 5 or tuple(pixels.shape[1:]) != expected:
            raise ValueError(
                f"pixels must be (I, {', '.join(map(str, expected))}) for this encoder: images, "
                f"tiles, colors, height and width of a tile; got {tuple(pixels.shape)}. Cut the "
                "image with the encoder's own config")
        if ids.dtype not in (torch.int64, torch.int32) or tuple(ids.shape) != pixels.shape[:1]:
            raise ValueError(f"aspect_ids must be one integer per image, ({len(pixels)},); "
                             f"got {tuple(ids.shape)} of {ids.dtype}".replace("torch.", ""))


class VisionModel(nn.Module):
    """Tiles -> vectors of the text model's width, one per token: the encoder and its projector.

    The projector is one matrix with a bias.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = VisionEncoder(config)
        self.projector = nn.Linear(config.n_features, config.output_dim)
        init_linear(self.projector)

    def init_weights(self) -> None:
        """Draws all weights; the size of each matrix follows the rule in `model.init`."""
        self.encoder.init_weights()
        init_linear(self.projector)

    def forward(
        self, pixels: Float[Tensor, "I J C px px"], aspect_ids: Int[Tensor, "I"]
    ) -> Float[Tensor, "I J n D"]:
        """Returns what the text model attends to. Arguments and errors as in `VisionEncoder`."""
        return self.projector(self.encoder(pixels, aspect_ids))
