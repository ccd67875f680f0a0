"""The loss with its linear layer, and products with quantized weights, as operations.

Letters: N tokens, D model width, V vocabulary, F inputs of a product, D its outputs. The loss is
timed forward and backward together, and counted as three products, 6 N D V operations, however
often a kernel computes the logits.

Notebooks 34 and 35.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from llama_from_scratch.kernels.cross_entropy import linear_cross_entropy
from llama_from_scratch.kernels.quantized import int4_linear, int8_linear
from llama_from_scratch.kernels.trial.operation import Operation, Outputs, Rival
from llama_from_scratch.model.quantized import (
    dequantize_int4,
    dequantize_int8,
    quantize_int4,
    quantize_int8,
    unpack_int4,
)

GROUP = 128   # of 4-bit weights

# --- the loss -------------------------------------------------------------------------------------


def _loss_inputs(size: Sequence[int], draw: Callable[..., Tensor]) -> Outputs:
    N, D, V = size
    targets = (draw(N).abs() * 1e5).long() % V
    return draw(N, D), draw(V, D) * D**-0.5, targets


def _loss(x: Tensor, weight: Tensor, targets: Tensor) -> Outputs:
    logits = F.linear(x, weight)
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return (F.cross_entropy(wide, targets),)


def _library_loss(x: Tensor, weight: Tensor, targets: Tensor) -> Outputs:
    return (F.linear_cross_entropy(
        x, weight, targets, options=torch.nn.LinearCrossEntropyOptions()).float(),)


def _loss_traffic(size: Sequence[int]) -> tuple[int, int]:
    N, D, V = size
    return 2 * (N * D + V * D), 2 * 2 * (N * D + V * D)


LOSS = Operation(
    name="linear_cross_entropy",
    sizes=((1, 8, 3), (7, 33, 100), (33, 64, 1000), (5, 16, 4099)), large=(8192, 4096, 128256),
    checked=(1024, 4096, 128256), beyond=None, inputs=_loss_inputs, exact=_loss, plain=_loss,
    fused=lambda x, weight, targets, emulate: (
        linear_cross_entropy(x, weight, targets, emulate=emulate),),
    traffic=_loss_traffic, operations=lambda size: (2.0 * size[0] * size[1] * size[2],
                                                    4.0 * size[0] * size[1] * size[2]),
    gradient_names=("x", "weight"), row_axis=0, part="loss", is_one_pass=True, is_mean=True,
    rivals=(Rival(name="F.linear_cross_entropy in chunks", way=_library_loss),))

# --- quantized weights ----------------------------------------------------------------------------


def _int8_inputs(size: Sequence[int], draw: Callable[..., Tensor]) -> Outputs:
    N, D, F_ = size
    return draw(N, F_), *quantize_int8(draw(D, F_))


def _int8(x: Tensor, numbers: Tensor, scale: Tensor) -> Outputs:
    return (F.linear(x, dequantize_int8(numbers, scale)),)


def _int4_inputs(size: Sequence[int], draw: Callable[..., Tensor]) -> Outputs:
    N, D, F_ = size
    words, scale, _ = quantize_int4(draw(D, F_), group=GROUP)
    return draw(N, F_), words, scale


def _int4(x: Tensor, words: Tensor, scale: Tensor) -> Outputs:
    return (F.linear(x, dequantize_int4(words, scale, None)),)


def _packed_int4(x: Tensor, words: Tensor, scale: Tensor) -> Outputs:
    """Returns the same weights in the layout of PyTorch's kernel, with a zero point of 0."""
    numbers = unpack_int4(words)
    pairs = (numbers[:, ::2] << 4 | numbers[:, 1::2]).to(torch.uint8)
    packed = torch.ops.aten._convert_weight_to_int4pack(pairs, 8)
    zeros = torch.zeros_like(scale)
    return x, packed, torch.stack([scale, zeros], dim=-1).transpose(0, 1).contiguous()


def _multiplied(x: Tensor, weight: Tensor) -> Outputs:
    return (F.linear(x, weight),)


UNQUANTIZED_8 = Rival(name="weights in bf16", way=_multiplied,
                      prepare=lambda x, *weight: (x, dequantize_int8(*weight)))
UNQUANTIZED_4 = Rival(name="weights in bf16", way=_multiplied,
                      prepare=lambda x, *weight: (x, dequantize_int4(*weight, None)))

INT8 = Operation(
    name="int8_linear", sizes=((1, 1, 32), (3, 33, 512), (8, 100, 1024), (9, 40, 96)),
    large=(1, 14336, 4096), beyond=None, inputs=_int8_inputs, exact=_int8, plain=_int8,
    fused=lambda x, numbers, scale, emulate: (
        int8_linear(x, numbers, scale=scale, emulate=emulate),),
    traffic=lambda size: (size[1] * size[2] + 2 * size[1] + 2 * size[0] * (size[1] + size[2]), 0),
    gradient_names=(), row_axis=0, part="quantized",
    rivals=(UNQUANTIZED_8, Rival(name="_weight_int8pack_mm", way=lambda x, numbers, scale: (
        torch.ops.aten._weight_int8pack_mm(x, numbers, scale),))))

INT4 = Operation(
    name="int4_linear", sizes=((1, 1, 128), (3, 33, 256), (8, 100, 1024), (9, 40, 384)),
    large=(1, 14336, 4096), beyond=None, inputs=_int4_inputs, exact=_int4, plain=_int4,
    fused=lambda x, words, scale, emulate: (
        int4_linear(x, words, scale=scale, emulate=emulate),),
    traffic=lambda size: (size[1] * size[2] // 2 + 2 * size[1] * size[2] // GROUP
                          + 2 * size[0] * (size[1] + size[2]), 0),
    gradient_names=(), row_axis=0, part="quantized",
    rivals=(UNQUANTIZED_4, Rival(
        name="_weight_int4pack_mm", prepare=_packed_int4, way=lambda x, packed, scales: (
            torch.ops.aten._weight_int4pack_mm(x, packed, GROUP, scales),))))

PRODUCTS = (LOSS, INT8, INT4)
