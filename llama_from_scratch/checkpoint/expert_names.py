"""The names of a Llama 4's parameters in Hugging Face's and Meta's layouts.

Our own axes are the published ones: the weights of experts multiply from the right, and RoPE turns
neighboring channels, so no rows are reordered. The differences are in what is joined:

- Hugging Face joins gate and up of all experts of a layer to one tensor (E, D, 2F).
- Meta joins wq, wk and wv, and gate and up of a dense layer. Each shard has its part of each, one
  after the other. Experts are stored as one matrix: (E D, F), and (E F, D) on the way back.
- Meta's names for the norms come from the matrix that follows.

E experts, D the width of the model, F of a feed-forward. GGUF's names are in `names.TABLE`.
Notebook 23. Sources: transformers, models/llama4/convert_llama4_weights_to_hf.py; llama-models,
models/llama4/model.py and moe.py.
"""

import dataclasses
from collections.abc import Iterator, Mapping

from llama_from_scratch.checkpoint.names import (
    HUGGING_FACE,
    META,
    TABLE,
    Row,
    Section,
    Theirs,
)
from llama_from_scratch.config import Experts, LlamaConfig


def sections(config: LlamaConfig) -> Iterator[Section]:
    """Yields all rows of the text model."""
    yield Section(ours="", theirs={HUGGING_FACE: "", META: ""}, rows=TABLE.once)
    for i, spec in enumerate(config.layers):
        rows = WITH_EXPERTS if isinstance(spec.feed_forward, Experts) else DENSE
        yield Section(ours=f"layers.{i}.", rows=_ATTENTION + rows,
                      theirs={HUGGING_FACE: f"model.layers.{i}.", META: f"layers.{i}."})


def _rows(columns: Mapping[str, tuple[str | Theirs, str | Theirs]]) -> tuple[Row, ...]:
    """Returns rows of the table with other columns: our name -> (Hugging Face's, Meta's)."""
    known = {row.ours: row for row in TABLE.per_layer}
    return tuple(
        dataclasses.replace(known[ours], theirs={
            format: how if isinstance(how, Theirs) else Theirs(name=how)
            for format, how in zip((HUGGING_FACE, META), pair, strict=True)})
        for ours, pair in columns.items())


_QKV = Theirs(name="attention.wqkv.weight", along=0)
_ATTENTION = _rows({
    "attention_norm.weight": ("input_layernorm.weight", "attention.wqkv.layer_norm_weight"),
    "attention.wq.weight": ("self_attn.q_proj.weight", _QKV),
    "attention.wk.weight": ("self_attn.k_proj.weight", _QKV),
    "attention.wv.weight": ("self_attn.v_proj.weight", _QKV),
    "attention.wo.weight": ("self_attn.o_proj.weight", "attention.wo.weight"),
})

_BOTH = Theirs(name="feed_forward.mlp.fc1_weight", along=0)
DENSE = _rows({
    "ffn_norm.weight": ("post_attention_layernorm.weight", "feed_forward.mlp.layer_norm_weight"),
    "feed_forward.w_gate.weight": ("feed_forward.gate_proj.weight", _BOTH),
    "feed_forward.w_up.weight": ("feed_forward.up_proj.weight", _BOTH),
    "feed_forward.w_down.weight": ("feed_forward.down_proj.weight", "feed_forward.mlp.fc2_weight"),
})
"""The feed-forward of a layer without experts, and the norm before it."""

_ALL = Theirs(name="feed_forward.experts.gate_up_proj", along=2)


def _flat(name: str) -> Theirs:
    return Theirs(name=f"feed_forward.experts.{name}", is_flat=True)


WITH_EXPERTS = _rows({
    "ffn_norm.weight": ("post_attention_layernorm.weight", "feed_forward.norm.weight"),
    "feed_forward.router.directions.weight": (
        "feed_forward.router.weight", Theirs(name="feed_forward.router_DE", is_transposed=True)),
    "feed_forward.experts.w_gate": (_ALL, _flat("moe_w_in_eD_F")),
    "feed_forward.experts.w_up": (_ALL, _flat("moe_w_swiglu_eD_F")),
    "feed_forward.experts.w_down": ("feed_forward.experts.down_proj", _flat("moe_w_out_eF_D")),
    "feed_forward.shared.w_gate.weight": (
        "feed_forward.shared_expert.gate_proj.weight", "feed_forward.w_in_shared_FD.weight"),
    "feed_forward.shared.w_up.weight": (
        "feed_forward.shared_expert.up_proj.weight", "feed_forward.w_swiglu_FD.weight"),
    "feed_forward.shared.w_down.weight": (
        "feed_forward.shared_expert.down_proj.weight", "feed_forward.w_out_shared_DF.weight"),
})
"""The feed-forward of a layer with experts, and the norm before it."""
