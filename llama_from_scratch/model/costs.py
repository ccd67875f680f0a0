"""What a config costs: parameters, operations and cache bytes, counted on a model without memory.

No formula here repeats the sizes of a part. The model is built once per config, without memory for
its weights, and its own parts are counted. So a new kind of layer is counted without new code.

Notebook 15.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import torch
from torch import nn

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.model.attention import Attention
from llama_from_scratch.model.moe import MoE
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.model.unwritten import unwritten

PLACES = ("embedding", "attention", "feed-forward", "norms", "output")


@functools.lru_cache(maxsize=64)
def param_shapes(config: LlamaConfig) -> Mapping[str, tuple[int, ...]]:
    """Returns the shape of each parameter by name, in the model's order, without a tied head."""
    return MappingProxyType({name: tuple(parameter.shape)
                             for name, parameter in _asked(config).named_parameters()})


@functools.lru_cache(maxsize=64)
def param_counts(config: LlamaConfig) -> Mapping[str, int]:
    """Returns the number of parameters in each of `PLACES`; a tied head counts as embedding."""
    model, counted = _asked(config), set()
    counts = dict.fromkeys(PLACES, 0)
    for place, part in _parts(model):
        for parameter in part.parameters():
            if parameter not in counted:
                counted.add(parameter)
                counts[place] += parameter.numel()
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters()), "a part is missing"
    return MappingProxyType(counts)


@functools.lru_cache(maxsize=64)
def active_params(config: LlamaConfig) -> int:
    """Returns how many parameters take part in the computation of one token.

    Of the routed experts these are the A that the token goes to. The embedding counts as a whole.
    """
    n_idle = sum(part.numel() * (moe.n_experts - moe.n_active) // moe.n_experts
                 for moe in _asked(config).modules() if isinstance(moe, MoE)
                 for part in moe.experts.parameters())
    return sum(parameter.numel() for parameter in _asked(config).parameters()) - n_idle


@functools.lru_cache(maxsize=64)
def params_by_matrix(config: LlamaConfig) -> Mapping[tuple[str, str], int]:
    """Returns the number of parameters by (place, name of the child), summed over the layers."""
    return _by_child(config, lambda child: sum(p.numel() for p in child.parameters()))


@functools.lru_cache(maxsize=64)
def flops_by_matrix(config: LlamaConfig) -> Mapping[tuple[str, str], int]:
    """Returns the same for the operations of one token, without those that grow with context."""
    return _by_child(config, lambda child: matmul_flops(child, 0))


def _by_child(
    config: LlamaConfig, amount_of: Callable[[nn.Module], int]
) -> Mapping[tuple[str, str], int]:
    amounts: dict[tuple[str, str], int] = {}
    for place, part in _parts(_asked(config)):
        for name, child in part.named_children():
            if n := amount_of(child):
                amounts[place, name] = amounts.get((place, name), 0) + n
    return MappingProxyType(amounts)


def flops_per_token(config: LlamaConfig, *, context: int) -> int:
    """Returns the operations for one decoded token that sees `context` tokens.

    A multiply-add counts as two operations. Every weight of a matrix that multiplies the token
    costs two; the embedding costs none because it is only looked up. In attention each visible
    token costs 4 H K: 2 H K for q k^T and 2 H K for the weighted sum of v.
    Norms, biases, RoPE and the activation are not counted.
    """
    model = _asked(config)
    return sum(matmul_flops(part, context) for part in (*model.layers, model.output))


@functools.singledispatch
def matmul_flops(module: nn.Module, context: int) -> int:
    """Returns the operations of one part for one token: by default the sum over its children.

    A new kind of part registers its own count with `@matmul_flops.register`.
    """
    return sum(matmul_flops(child, context) for child in module.children())


@matmul_flops.register
def _(linear: nn.Linear, context: int) -> int:
    return 2 * linear.weight.numel()


@matmul_flops.register
def _(attention: Attention, context: int) -> int:
    n_visible = context if attention.chunk_size is None else min(context, attention.chunk_size)
    n_products = sum(matmul_flops(child, context) for child in attention.children())
    return n_products + 4 * attention.wq.out_features * n_visible


@matmul_flops.register
def _(moe: MoE, context: int) -> int:
    n_routed = sum(2 * weight[0].numel() for weight in moe.experts.parameters())
    return (matmul_flops(moe.router, context) + matmul_flops(moe.shared, context)
            + moe.n_active * n_routed)


@functools.lru_cache(maxsize=64)
def kv_values_per_token(config: LlamaConfig) -> int:
    """Returns how many numbers each token adds to the KV cache, summed over all layers."""
    dtype = torch.bfloat16
    room = dict(batch_size=1, max_seq_len=1, dtype=dtype, device="meta")
    n_bytes = sum(block.new_cache(**room).n_bytes for block in _asked(config).layers)
    return n_bytes // dtype.itemsize


def _parts(model: Llama) -> Iterator[tuple[str, nn.Module]]:
    """Yields (place, part) for every part that has parameters."""
    yield "embedding", model.tok_embeddings
    for block in model.layers:
        yield "attention", block.attention
        yield "feed-forward", block.feed_forward
        yield "norms", block.attention_norm
        yield "norms", block.ffn_norm
    yield "norms", model.norm
    yield "output", model.output


@functools.lru_cache(maxsize=8)
def _asked(config: LlamaConfig) -> Llama:
    return unwritten(config)
