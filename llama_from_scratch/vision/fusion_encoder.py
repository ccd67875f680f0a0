"""The vision encoder of Llama 4: tiles of an image -> vectors that take places in the text.

Each tile is cut into patches, and a transformer reads the patches of one tile together. It knows
nothing of the other tiles. At its end, four neighboring patches become one token, so that a tile
takes few places in the text. An adapter of two layers and a projector give each token the width of
the text model.

Letters: C colors, P patches of a tile, W vision width, H heads, K width of a head, R = K/2 pairs, D
text width. Inside, a tile has T = P + 1 tokens: its patches row by row, and then its class token,
which is dropped at the end.

A patch has its place twice: as a learned vector that is added, and as an angle by which queries and
keys are turned. Half of the pairs of a head turn by its column, and the other half by its row. Both
count from 1. The class token has no place and is not turned.

One `norm_eps` serves all norms; transformers has 1e-5 in its code.

Notebook 24. Llama 4. Sources: llama-models, models/llama4/vision/encoder.py and embedding.py; Heo
et al., arXiv:2403.13298 (RoPE in two dimensions); Shi et al., arXiv:1609.05158 (pixel shuffle).
"""

import math

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn

from llama_from_scratch.config import TileEncoderConfig
from llama_from_scratch.model.attention import SoftmaxAttention
from llama_from_scratch.model.init import init_linear
from llama_from_scratch.model.mask import Everything
from llama_from_scratch.model.rope import Rotate, rope_frequencies, rope_rotation
from llama_from_scratch.vision.encoder import N_COLORS, PatchEmbedding, VisionFeedForward


def places_in_tile(
    grid: int, *, device: torch.device | str = "cpu"
) -> tuple[Int[Tensor, "T"], Int[Tensor, "T"]]:
    """Returns the column and the row of each token of a tile with `grid` x `grid` patches.

    They count from 1, and are 0 for the class token, the last: no turn at all.
    """
    patch_P = torch.arange(grid**2, device=device)
    none = torch.zeros(1, dtype=patch_P.dtype, device=device)
    return torch.cat([patch_P % grid + 1, none]), torch.cat([patch_P // grid + 1, none])


def shuffled(x: Float[Tensor, "tiles P W"], *, edge: int) -> Float[Tensor, "tiles n wide"]:
    """Returns one token for each square of `edge` x `edge` patches: their states, joined.

    The states of a square are in the order of its patches, row by row. Squares follow each other
    row by row. A tile is a square of patches.
    """
    tiles, P, W = x.shape
    n = math.isqrt(P) // edge
    squares = x.view(tiles, n, edge, n, edge, W).transpose(2, 3)
    return squares.reshape(tiles, n * n, edge * edge * W)


class TileRope(nn.Module):
    """The rotation of each token by its place in the tile, of queries and keys alike.

    The frequencies stay in fp32 when the model gets another dtype, as in `model.rope`. A head has
    R = K/2 pairs. The first R/2 turn by the column, the others by the row; both with the same R/2
    frequencies, theta^(-2i/R) for i = 0, 1, ...
    """

    def __init__(self, config: TileEncoderConfig) -> None:
        super().__init__()
        self._config = config
        self.register_buffer("freq", self._frequencies(), persistent=False)

    def _frequencies(self) -> Float[Tensor, "half"]:
        return rope_frequencies(self._config.head_dim // 2, theta=self._config.rope_theta)

    def _apply(self, fn, recurse=True):  # torch calls this for .to(), .half(), .cuda()
        super()._apply(fn, recurse)
        with torch.device(self.freq.device):
            self.freq = self._frequencies()
        return self

    def forward(self) -> Complex[Tensor, "1 T R"]:
        column, row = places_in_tile(self._config.grid, device=self.freq.device)
        return torch.cat([rope_rotation(place[None], self.freq) for place in (column, row)], dim=-1)


class TileAttention(nn.Module):
    """Multi-head attention among the tokens of a tile, with biases, RoPE by place and no mask."""

    def __init__(self, config: TileEncoderConfig) -> None:
        super().__init__()
        self.heads = config.n_heads, config.head_dim
        self.wq = nn.Linear(config.dim, config.dim)
        self.wk = nn.Linear(config.dim, config.dim)
        self.wv = nn.Linear(config.dim, config.dim)
        self.wo = nn.Linear(config.dim, config.dim)
        self.rotate = Rotate()
        self.attend = SoftmaxAttention()

    def forward(
        self, x: Float[Tensor, "tiles T W"], rotation: Complex[Tensor, "1 T R"]
    ) -> Float[Tensor, "tiles T W"]:
        q = self.wq(x).unflatten(-1, self.heads)
        k = self.wk(x).unflatten(-1, self.heads)
        v = self.wv(x).unflatten(-1, self.heads)
        q, k = self.rotate(q, k, rotation)
        return self.wo(self.attend(q, k, v, Everything()).flatten(-2))

    def init_weights(self, *, n_additions: int) -> None:
        """Draws fresh weights; the stream receives `n_additions` results (`model.init`)."""
        for w in (self.wq, self.wk, self.wv):
            init_linear(w)
        init_linear(self.wo, n_additions=n_additions)


class TileBlock(nn.Module):
    """One layer: x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: TileEncoderConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.attention = TileAttention(config)
        self.ffn_norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.feed_forward = VisionFeedForward(config)

    def forward(
        self, x: Float[Tensor, "tiles T W"], rotation: Complex[Tensor, "1 T R"]
    ) -> Float[Tensor, "tiles T W"]:
        x = x + self.attention(self.attention_norm(x), rotation)
        return x + self.feed_forward(self.ffn_norm(x))

    def init_weights(self, *, n_additions: int) -> None:
        """Draws fresh weights; the stream receives `n_additions` results (`model.init`)."""
        for norm in (self.attention_norm, self.ffn_norm):
            norm.reset_parameters()
        self.attention.init_weights(n_additions=n_additions)
        self.feed_forward.init_weights(n_additions=n_additions)


class TileEncoder(nn.Module):
    """Tiles -> the last state of each patch.

    Weights come from torch's global generator: seed it first.
    """

    def __init__(self, config: TileEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = PatchEmbedding(config)
        self.class_token = nn.Parameter(torch.empty(config.dim))
        self.positions = nn.Parameter(torch.empty(config.n_patches + 1, config.dim))
        self.rope = TileRope(config)
        self.norm_before = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.layers = nn.ModuleList(TileBlock(config) for _ in range(config.n_layers))
        self.norm_after = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.init_weights()

    def init_weights(self) -> None:
        """Draws all weights; the size of each matrix follows the rule in `model.init`."""
        self.patch_embedding.init_weights()
        for vectors in (self.class_token, self.positions):
            nn.init.normal_(vectors, std=self.config.dim**-0.5)
        for norm in (self.norm_before, self.norm_after):
            norm.reset_parameters()
        for block in self.layers:
            block.init_weights(n_additions=2 * len(self.layers))

    def embed(self, pixels: Float[Tensor, "tiles C px px"]) -> Float[Tensor, "tiles T W"]:
        """Returns the first state of each token, normed; the class token is the last.

        Errors as in `forward`.
        """
        config = self.config
        expected = (N_COLORS, config.tile_px, config.tile_px)
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != expected:
            raise ValueError(
                f"pixels must be (tiles, {', '.join(map(str, expected))}) for this encoder: tiles, "
                f"colors, height and width of a tile; got {tuple(pixels.shape)}. Cut the image "
                "with the encoder's own config")
        x = self.patch_embedding(pixels)
        x = torch.cat([x, self.class_token.expand(len(x), 1, -1)], dim=1)
        return self.norm_before(x + self.positions)

    def forward(self, pixels: Float[Tensor, "tiles C px px"]) -> Float[Tensor, "tiles P W"]:
        """Returns the last state of each patch, row by row.

        Raises ValueError for pixels of another shape.
        """
        x, rotation = self.embed(pixels), self.rope()
        for block in self.layers:
            x = block(x, rotation)
        return self.norm_after(x)[:, :-1]


class TileAdapter(nn.Module):
    """gelu(w_out gelu(w_in x)), token by token, without biases. GELU also comes last."""

    def __init__(self, config: TileEncoderConfig) -> None:
        super().__init__()
        self.w_in = nn.Linear(config.dim * config.shuffle**2, config.adapter_dim, bias=False)
        self.w_out = nn.Linear(config.adapter_dim, config.adapter_dim, bias=False)
        self.activation = nn.GELU()

    def forward(self, x: Float[Tensor, "*batch wide"]) -> Float[Tensor, "*batch features"]:
        return self.activation(self.w_out(self.activation(self.w_in(x))))

    def init_weights(self) -> None:
        """Draws fresh weights (`model.init`)."""
        init_linear(self.w_in)
        init_linear(self.w_out)


class TileModel(nn.Module):
    """Tiles -> vectors of the text model's width: the encoder, its adapter and the projector.

    A tile has `config.n_tokens` of them, row by row.
    """

    def __init__(self, config: TileEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = TileEncoder(config)
        self.adapter = TileAdapter(config)
        self.projector = nn.Linear(config.adapter_dim, config.output_dim, bias=False)
        self.adapter.init_weights()
        init_linear(self.projector)

    def init_weights(self) -> None:
        """Draws all weights; the size of each matrix follows the rule in `model.init`."""
        self.encoder.init_weights()
        self.adapter.init_weights()
        init_linear(self.projector)

    def forward(self, pixels: Float[Tensor, "tiles C px px"]) -> Float[Tensor, "tiles n D"]:
        """Returns what takes places in the text. Raises ValueError for pixels of another shape."""
        states = self.encoder(pixels)
        return self.projector(self.adapter(shuffled(states, edge=self.config.shuffle)))
