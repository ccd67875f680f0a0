"""Configs of models that have the shape of a Llama, but were never published."""

import dataclasses

from llama_from_scratch import family

_BASE = dataclasses.replace(family.tiny("llama-3.1"), vocab_size=520)
_OLD = dataclasses.replace(family.tiny("llama-2"), vocab_size=520)
_ALL_BIASES = dict(has_qkv_bias=True, has_wo_bias=True, has_ffn_bias=True)
RELATIVES = {
    "wide heads": dataclasses.replace(_BASE, explicit_head_dim=32),
    "narrow heads": dataclasses.replace(_BASE, explicit_head_dim=8),
    "many heads": dataclasses.replace(_OLD, n_heads=16, n_kv_heads=2, explicit_head_dim=12),
    "biases of queries, keys and values": dataclasses.replace(_BASE, has_qkv_bias=True),
    "biases of attention": dataclasses.replace(_OLD, has_qkv_bias=True, has_wo_bias=True),
    "biases of the feed-forward": dataclasses.replace(_BASE, has_ffn_bias=True),
    "linear scaling": dataclasses.replace(_OLD, rope_linear_factor=4.0, max_seq_len=16384),
    "all of it, tied": dataclasses.replace(
        family.tiny("llama-3.2"), vocab_size=520, explicit_head_dim=24, **_ALL_BIASES),
}
UNEVEN = dataclasses.replace(_BASE, n_heads=6, n_kv_heads=3, explicit_head_dim=12)
"""Its heads do not divide dim, which transformers refuses."""
