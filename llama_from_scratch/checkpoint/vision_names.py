"""The names of the parameters of a model that sees, in the formats that can hold one.

A section holds the rows of the table whose names begin alike, such as the rows of one layer. The
text model has the rows of `names.TABLE`, under longer names. Differences, apart from names:

- Hugging Face numbers text layers and cross-attention blocks in one list, in the order in which
  they run, and Meta each kind by itself.
- Hugging Face has one embedding for the vocabulary and the ids of images, and Meta two, like ours.
- Only wq and wk of the text's own attention are in halves at Hugging Face: nothing else has RoPE.
- Meta stores the tables of places once for the whole grid of tiles; see `vision.tables`.

Notebook 22. Sources: llama-models, models/llama3/multimodal/model.py; transformers,
models/mllama/modeling_mllama.py.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from llama_from_scratch.checkpoint.names import (
    HUGGING_FACE,
    META,
    TABLE,
    Row,
    Section,
    Theirs,
)
from llama_from_scratch.config import VisionLlamaConfig, record


def sections(config: VisionLlamaConfig) -> Iterator[Section]:
    """Yields all rows of a config's model; some apply only to other models of its kind."""
    beginnings = {HUGGING_FACE: "language_model.", META: "text_model."}
    yield Section(ours="", theirs=beginnings, rows=_EMBEDDINGS)
    yield Section(ours="", theirs=beginnings, rows=TABLE.once[1:])
    numbers = merged_layers(config.n_layers, config.cross_layers)
    for j, i in enumerate(config.cross_layers):
        yield Section(ours=f"layers.{i}.cross.", rows=CROSS, theirs={
            HUGGING_FACE: f"language_model.model.layers.{numbers.cross[j]}.",
            META: f"text_model.cross_attention_layers.{j}."})
    for i in range(config.n_layers):
        yield Section(ours=f"layers.{i}.", rows=TABLE.per_layer, theirs={
            HUGGING_FACE: f"language_model.model.layers.{numbers.text[i]}.",
            META: f"text_model.layers.{i}."})
    beginnings = {HUGGING_FACE: "", META: "vision_model."}
    yield Section(ours="vision.", theirs=beginnings, rows=VISION)
    for kind, theirs, n in (("local", "transformer", config.vision.n_local_layers),
                            ("global", "global_transformer", config.vision.n_global_layers)):
        for i in range(n):
            yield Section(ours=f"vision.encoder.{kind}_layers.{i}.", rows=VISION_BLOCK, theirs={
                HUGGING_FACE: f"vision_model.{theirs}.layers.{i}.",
                META: f"vision_model.vision_encoder.{theirs}.resblocks.{i}."})


@record
class Merged:
    """Hugging Face's numbers of the text layers, and of the cross-attention blocks, in order."""

    text: tuple[int, ...]
    cross: tuple[int, ...]


def merged_layers(n_layers: int, cross_layers: Sequence[int]) -> Merged:
    """Returns the numbers in one list of all: each block comes right before its text layer."""
    text, cross = [], []
    for i in range(n_layers):
        if i in cross_layers:
            cross.append(len(text) + len(cross))
        text.append(len(text) + len(cross))
    return Merged(text=tuple(text), cross=tuple(cross))


def _row(
    ours: str, hugging_face: str, meta: str, *, cut: int | None = None, heads: str | None = None,
) -> Row:
    return Row(ours=ours, cut=cut, heads=heads,
               theirs={HUGGING_FACE: Theirs(name=hugging_face), META: Theirs(name=meta)})


def _table(ours: str, hugging_face: str, meta: str) -> Row:
    """Returns the row of a table of places, which Meta stores as a grid."""
    return Row(ours=ours, theirs={HUGGING_FACE: Theirs(name=hugging_face),
                                  META: Theirs(name=meta, is_grid=True)})


def _one_table(row: Row) -> Row:
    """Returns the row with its parameter as the first or next part of Hugging Face's embedding."""
    theirs = Theirs(name="model.embed_tokens.weight", along=0)
    return dataclasses.replace(row, theirs={**row.theirs, HUGGING_FACE: theirs})


_EMBEDDINGS = (
    _one_table(TABLE.once[0]),
    _one_table(_row("image_embeddings.weight", "", "learnable_embedding.weight", cut=0)),
)

CROSS = (
    _row("attention_norm.weight", "input_layernorm.weight", "attention_norm.weight"),
    _row("attention.wq.weight", "cross_attn.q_proj.weight", "attention.wq.weight", cut=0,
         heads="n_heads"),
    _row("attention.wk.weight", "cross_attn.k_proj.weight", "attention.wk.weight", cut=0,
         heads="n_kv_heads"),
    _row("attention.wv.weight", "cross_attn.v_proj.weight", "attention.wv.weight", cut=0,
         heads="n_kv_heads"),
    _row("attention.wo.weight", "cross_attn.o_proj.weight", "attention.wo.weight", cut=1),
    _row("attention.q_norm.weight", "cross_attn.q_norm.weight", "attention.q_norm.weight"),
    _row("attention.k_norm.weight", "cross_attn.k_norm.weight", "attention.k_norm.weight"),
    _row("attention_gate.weight", "cross_attn_attn_gate", "gate_attn"),
    _row("ffn_norm.weight", "post_attention_layernorm.weight", "ffn_norm.weight"),
    _row("feed_forward.w_gate.weight", "mlp.gate_proj.weight", "feed_forward.w1.weight", cut=0),
    _row("feed_forward.w_up.weight", "mlp.up_proj.weight", "feed_forward.w3.weight", cut=0),
    _row("feed_forward.w_down.weight", "mlp.down_proj.weight", "feed_forward.w2.weight", cut=1),
    _row("ffn_gate.weight", "cross_attn_mlp_gate", "gate_ffwd"),
)
"""A cross-attention block."""

VISION_BLOCK = (
    _row("attention_norm.weight", "input_layernorm.weight", "ln_1.weight"),
    _row("attention_norm.bias", "input_layernorm.bias", "ln_1.bias"),
    _row("attention.wq.weight", "self_attn.q_proj.weight", "attn.wq.weight", cut=0),
    _row("attention.wk.weight", "self_attn.k_proj.weight", "attn.wk.weight", cut=0),
    _row("attention.wv.weight", "self_attn.v_proj.weight", "attn.wv.weight", cut=0),
    _row("attention.wo.weight", "self_attn.o_proj.weight", "attn.wo.weight", cut=1),
    _row("attention_gate.weight", "gate_attn", "gate_attn"),
    _row("ffn_norm.weight", "post_attention_layernorm.weight", "ln_2.weight"),
    _row("ffn_norm.bias", "post_attention_layernorm.bias", "ln_2.bias"),
    _row("feed_forward.w_up.weight", "mlp.fc1.weight", "mlp.c_fc.weight", cut=0),
    _row("feed_forward.w_up.bias", "mlp.fc1.bias", "mlp.c_fc.bias", cut=0),
    _row("feed_forward.w_down.weight", "mlp.fc2.weight", "mlp.c_proj.weight", cut=1),
    _row("feed_forward.w_down.bias", "mlp.fc2.bias", "mlp.c_proj.bias"),
    _row("ffn_gate.weight", "gate_ffn", "gate_ffn"),
)
"""A layer of the encoder; only global layers have gates."""

_ENCODER = "vision_encoder."
VISION = (
    _row("encoder.class_token", "vision_model.class_embedding", f"{_ENCODER}class_embedding"),
    Row(ours="encoder.patch_embedding.linear.weight", cut=0, theirs={
        HUGGING_FACE: Theirs(name="vision_model.patch_embedding.weight", is_convolution=True),
        META: Theirs(name=f"{_ENCODER}conv1._linear.weight")}),
    _table("encoder.tiles_before.table.weight",
           "vision_model.pre_tile_positional_embedding.embedding.weight",
           f"{_ENCODER}pre_tile_pos_embed.embedding"),
    _row("encoder.tiles_before.gate.weight", "vision_model.pre_tile_positional_embedding.gate",
         f"{_ENCODER}pre_tile_pos_embed.gate"),
    _row("encoder.positions.in_tile", "vision_model.gated_positional_embedding.embedding",
         f"{_ENCODER}positional_embedding"),
    _table("encoder.positions.in_canvas.weight",
           "vision_model.gated_positional_embedding.tile_embedding.weight",
           f"{_ENCODER}gated_positional_embedding"),
    _row("encoder.positions.gate.weight", "vision_model.gated_positional_embedding.gate",
         f"{_ENCODER}gated_positional_embedding_gate"),
    _row("encoder.norm_before.weight", "vision_model.layernorm_pre.weight",
         f"{_ENCODER}ln_pre.weight"),
    _row("encoder.norm_before.bias", "vision_model.layernorm_pre.bias", f"{_ENCODER}ln_pre.bias"),
    _row("encoder.norm_after.weight", "vision_model.layernorm_post.weight",
         f"{_ENCODER}ln_post.weight"),
    _row("encoder.norm_after.bias", "vision_model.layernorm_post.bias",
         f"{_ENCODER}ln_post.bias"),
    _table("encoder.tiles_after.table.weight",
           "vision_model.post_tile_positional_embedding.embedding.weight",
           f"{_ENCODER}post_tile_pos_embed.embedding"),
    _row("encoder.tiles_after.gate.weight", "vision_model.post_tile_positional_embedding.gate",
         f"{_ENCODER}post_tile_pos_embed.gate"),
    _row("projector.weight", "multi_modal_projector.weight", "vision_projection.weight", cut=0),
    _row("projector.bias", "multi_modal_projector.bias", "vision_projection.bias", cut=0),
)
"""The encoder without its layers, and the projector."""

_NEWER = {"model.language_model.": "language_model.model.", "model.vision_model.": "vision_model.",
          "model.multi_modal_projector.": "multi_modal_projector.",
          "lm_head.": "language_model.lm_head."}


def published_name(name: str) -> str:
    """Returns the name of a tensor in Meta's releases, for its name in transformers 4.52 or later.

    Both occur in files of Hugging Face's layout; any other name is returned unchanged.
    """
    for newer, published in _NEWER.items():
        if name.startswith(newer):
            return published + name.removeprefix(newer)
    return name
