"""Layers whose weights are on a grid and stay packed: a product, and a table of embeddings.

The forward pass unpacks the weights and multiplies. It shows what a grid does to a model, and how
small the model is; the products that are fast read the packed weights themselves. With
`input_bits`, each token's input is rounded as well, to whole numbers with a scale of its own, as
processors that multiply integers need it.

Letters: D rows (outputs), F inputs. Notebook 60.
"""

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional

from llama_from_scratch.model.grid import WeightGrid, pack_bits, unpack_bits, values


class GridWeight(nn.Module):
    """A matrix on a grid: packed numbers, the scale of each group, perhaps its zero.

    In a state_dict: `packed` (uint8, D x bytes of a row), `scales` (fp16, D x groups), and `zeros`
    (uint8, D x groups) if the grid has zero points.
    """

    def __init__(
        self, numbers: UInt8[Tensor, "D F"], scales: Float[Tensor, "D groups"],
        zeros: UInt8[Tensor, "D groups"] | None, *, grid: WeightGrid,
    ) -> None:
        super().__init__()
        self.grid, self.shape = grid, tuple(numbers.shape)
        self.register_buffer("packed", pack_bits(numbers, bits=grid.bits))
        self.register_buffer("scales", scales)
        self.register_buffer("zeros", zeros)

    @property
    def n_bytes(self) -> int:
        """The bytes of the packed numbers, the scales and the zeros."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers())

    def values(self, rows: Tensor | None = None) -> Float[Tensor, "D F"]:
        """Returns the matrix in fp32, or only the rows with these numbers."""
        packed, scales, zeros = (each if each is None or rows is None else each[rows]
                                 for each in (self.packed, self.scales, self.zeros))
        numbers = unpack_bits(packed, bits=self.grid.bits, row=self.shape[1])
        return values(numbers, scales, zeros, grid=self.grid)


class GridLinear(nn.Module):
    """y = x W^T + bias with W on a grid, computed in the dtype of x.

    `input_bits`: the bits to which each token's input is rounded, from 2 to 8; None for none.
    """

    def __init__(
        self, weight: GridWeight, *, bias: Tensor | None = None, input_bits: int | None = None
    ) -> None:
        super().__init__()
        self.on_grid, self.input_bits = weight, input_bits
        self.out_features, self.in_features = weight.shape
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def dequantized(self) -> Float[Tensor, "D F"]:
        """Returns the weight in fp32."""
        return self.on_grid.values()

    def forward(self, x: Float[Tensor, "*batch F"]) -> Float[Tensor, "*batch D"]:
        if self.input_bits is not None:
            x = rounded_tokens(x, bits=self.input_bits)
        return functional.linear(x, self.dequantized().to(x.dtype), self.bias)

    def extra_repr(self) -> str:
        inputs = "" if self.input_bits is None else f", inputs of {self.input_bits} bits"
        return f"{self.in_features} -> {self.out_features}, {self.on_grid.grid}{inputs}"


class GridEmbedding(nn.Module):
    """The row of each id of a table on a grid, in `dtype`. A tied head has the same `on_grid`."""

    def __init__(self, weight: GridWeight, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.on_grid, self.dtype = weight, dtype
        self.num_embeddings, self.embedding_dim = weight.shape

    def forward(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < self.num_embeddings:
            raise IndexError("an id is outside the table")
        return self.on_grid.values(ids.flatten()).unflatten(0, ids.shape).to(self.dtype)


def rounded_tokens(x: Float[Tensor, "*batch F"], *, bits: int) -> Float[Tensor, "*batch F"]:
    """Returns each token's vector at whole multiples of its own scale.

    The largest number of a token becomes 2^(bits-1) - 1 or its negative, as `dynamic` quantization
    per token does it; a vector of zeros stays.
    """
    most = 2 ** (bits - 1) - 1
    scale = x.detach().float().abs().amax(-1, keepdim=True) / most
    scale = scale.clamp(min=torch.finfo(torch.float32).tiny)
    return ((x.float() / scale).round() * scale).to(x.dtype)
