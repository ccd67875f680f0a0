"""Ids -> logits: the plain Llama and its parts, each in a module of its own.

inputs  norm  rope  mask  attention  kv_cache  feed_forward  transformer     the model
static_cache                                  steps whose length only the device counts
quantized                                                    weights of 8 and 4 bits
init  unwritten  costs                                       fresh weights, no memory, sizes
"""

from llama_from_scratch.model.attention import Attention as Attention
from llama_from_scratch.model.feed_forward import FeedForward as FeedForward
from llama_from_scratch.model.inputs import BlockInputs as BlockInputs
from llama_from_scratch.model.kv_cache import KVCache as KVCache
from llama_from_scratch.model.norm import RMSNorm as RMSNorm
from llama_from_scratch.model.transformer import Block as Block
from llama_from_scratch.model.transformer import Llama as Llama
