"""The names of a Llama 4's parameters in Hugging Face's and Meta's layouts, its encoder's too.

Our own axes are the published ones: the weights of experts multiply from the right, and RoPE turns
neighboring channels, so no rows are reordered. The differences are in what is joined:

- Hugging Face joins gate and up of all experts of a layer to one tensor (E, D, 2F).
- Meta joins wq, wk and wv, and gate and up of a dense layer. Each shard has its part of each, one
  after the other. Experts are stored as one matrix: (E D, F), and (E F, D) on the way back.
- Meta's names for the norms come from the matrix that follows.

In a whole Llama 4, Hugging Face's names of the text begin with "language_model."; Meta's do not
change. GGUF's names of the text are in `names.TABLE`.

E experts, D the width of the model, F of a feed-forward. Notebooks 23 and 24. Sources:
transformers, models/llama4/convert_llama4_weights_to_hf.py; llama-models, models/llama4/model.py,
moe.py and vision.
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
from llama_from_scratch.config import Experts, FusionLlamaConfig, LlamaConfig


def sections(config: LlamaConfig) -> Iterator[Section]:
    """Yields all rows of a Llama 4, of its text model alone or of a whole one."""
    is_whole = isinstance(config, FusionLlamaConfig)
    text = "language_model." if is_whole else ""
    yield Section(ours="", theirs={HUGGING_FACE: text, META: ""}, rows=TABLE.once)
    for i, spec in enumerate(config.layers):
        rows = WITH_EXPERTS if isinstance(spec.feed_forward, Experts) else DENSE
        yield Section(ours=f"layers.{i}.", rows=_ATTENTION + rows,
                      theirs={HUGGING_FACE: f"{text}model.layers.{i}.", META: f"layers.{i}."})
    if not is_whole:
        return
    yield Section(ours="vision.", theirs={HUGGING_FACE: "", META: ""}, rows=ENCODER)
    for i in range(config.vision.n_layers):
        yield Section(ours=f"vision.encoder.layers.{i}.", rows=TILE_BLOCK, theirs={
            HUGGING_FACE: f"vision_model.model.layers.{i}.",
            META: f"{_META_ENCODER}transformer.resblocks.{i}."})


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


def _row(ours: str, hugging_face: str, meta: str, *, cut: int | None = None) -> Row:
    return Row(ours=ours, cut=cut,
               theirs={HUGGING_FACE: Theirs(name=hugging_face), META: Theirs(name=meta)})


# A bias that is added to a sum over shards is whole in each shard.
TILE_BLOCK = (
    *(_row(f"{ours}.{kind}", f"{hugging_face}.{kind}", f"{meta}.{kind}",
           cut=weight if kind == "weight" else bias)
      for ours, hugging_face, meta, weight, bias in (
          ("attention_norm", "input_layernorm", "ln_1", None, None),
          ("attention.wq", "self_attn.q_proj", "attn.wq", 0, 0),
          ("attention.wk", "self_attn.k_proj", "attn.wk", 0, 0),
          ("attention.wv", "self_attn.v_proj", "attn.wv", 0, 0),
          ("attention.wo", "self_attn.o_proj", "attn.wo", 1, None),
          ("ffn_norm", "post_attention_layernorm", "ln_2", None, None),
          ("feed_forward.w_up", "mlp.fc1", "mlp.c_fc", 0, 0),
          ("feed_forward.w_down", "mlp.fc2", "mlp.c_proj", 1, None))
      for kind in ("weight", "bias")),
)
"""A layer of the encoder."""

_META_ENCODER = "vision_embeddings.vision_encoder."
_META_ADAPTER = "vision_embeddings.vision_adapter.mlp."
ENCODER = (
    _row("encoder.patch_embedding.linear.weight", "vision_model.patch_embedding.linear.weight",
         f"{_META_ENCODER}conv1._linear.weight", cut=0),
    _row("encoder.class_token", "vision_model.class_embedding", f"{_META_ENCODER}class_embedding"),
    _row("encoder.positions", "vision_model.positional_embedding_vlm",
         f"{_META_ENCODER}positional_embedding_vlm"),
    *(_row(f"encoder.{ours}.{kind}", f"vision_model.{hugging_face}.{kind}",
           f"{_META_ENCODER}{meta}.{kind}")
      for ours, hugging_face, meta in (("norm_before", "layernorm_pre", "ln_pre"),
                                       ("norm_after", "layernorm_post", "ln_post"))
      for kind in ("weight", "bias")),
    _row("adapter.w_in.weight", "vision_model.vision_adapter.mlp.fc1.weight",
         f"{_META_ADAPTER}c_fc.weight", cut=0),
    _row("adapter.w_out.weight", "vision_model.vision_adapter.mlp.fc2.weight",
         f"{_META_ADAPTER}c_proj.weight", cut=1),
    _row("projector.weight", "multi_modal_projector.linear_1.weight", "vision_projection.weight",
         cut=0),
)
"""The encoder without its layers, the adapter and the projector."""
