"""The names of the same parameters in all formats: one table, with a column for each format.

There is a row for each parameter of a Llama. A row holds what is true of the parameter in every
format: the axis along which Meta's shards and tensor parallelism cut it, and the heads that its
rows belong to. A column holds a format's name for it and how the format stores it. Apart from
names, there are two differences. Meta cuts each matrix into shards. Hugging Face orders the rows of
wq and wk in another way, because its RoPE turns channels r and r + K/2 together, while ours and
Meta's turns 2r and 2r + 1. Only `translation` and other modules of this folder use the table.

Notebook 18. Sources: llama-models, models/llama3/model.py; transformers,
models/llama/convert_llama_weights_to_hf.py; gguf-py, constants.py.
"""

from collections.abc import Mapping
from typing import Literal

from llama_from_scratch.config import (
    FusionLlamaConfig,
    LlamaConfig,
    VisionLlamaConfig,
    record,
)
from llama_from_scratch.model.costs import param_shapes


@record
class Format:
    """A format whose tensors have names.

    `of_layer`: the beginning of the names of layer `{i}`. `ignored`: tensors that only repeat the
    config, and are not read.
    """

    name: str
    of_layer: str
    ignored: tuple[str, ...] = ()


@record
class Theirs:
    """How a format stores one of our parameters; by default unchanged.

    "Their" tensor is the format's. `name`: of their tensor, with `{e}` for the number of the expert
    if `is_split`. `has_halves`: the rows of each head are in Hugging Face's order: first our even
    rows, then our odd ones. `is_transposed`: the last two axes are exchanged. `along`: their tensor
    holds the parameters of several rows of the table, concatenated along this axis in the order of
    the table. `is_split`: each entry of our first axis, one expert, is a separate tensor.
    `is_flat`: our first two axes are one, so that the rows of all experts follow one another.
    `is_convolution`: the second axis is cut into colors, rows and columns of a patch. `is_grid`: a
    table of places is stored once for the whole grid of tiles (`vision.tables`).
    """

    name: str
    has_halves: bool = False
    is_transposed: bool = False
    along: int | None = None
    is_split: bool = False
    is_flat: bool = False
    is_convolution: bool = False
    is_grid: bool = False


@record
class Row:
    """One of our parameters, and how each format stores it.

    `cut`: the axis along which shards divide it; None if each shard holds the whole. `heads`: the
    field of the config with the number of heads that its rows belong to; shards may repeat
    key/value heads. `role`: marks the parameters that readers need before they have the config.
    """

    ours: str
    theirs: Mapping[Format, Theirs]
    cut: int | None = None
    heads: Literal["n_heads", "n_kv_heads"] | None = None
    role: Literal["embedding", "head", "queries", "keys"] | None = None


@record
class Section:
    """Rows whose names begin with `ours` in our model, and with `theirs[format]` in a format."""

    ours: str
    theirs: Mapping[Format, str]
    rows: tuple[Row, ...]


@record
class Table:
    """The rows of a model.

    `once`: parameters of the model itself. `per_layer`: parameters of each layer; their full names
    begin with `OF_LAYER`.
    """

    once: tuple[Row, ...]
    per_layer: tuple[Row, ...]

    def name_of(self, role: str, format: Format) -> str:
        """Returns a format's name for the parameter with this role.

        If the parameter belongs to a layer, it is the name in the first layer.
        """
        found = [row.theirs[format].name for row in self.once if row.role == role]
        found += [format.of_layer.format(i=0) + row.theirs[format].name for row in self.per_layer
                  if row.role == role]
        name, = found
        return name


OF_LAYER = "layers.{i}."
HUGGING_FACE = Format(
    name="Hugging Face", of_layer="model.layers.{i}.",
    ignored=("model.rotary_emb.inv_freq", "model.layers.{i}.self_attn.rotary_emb.inv_freq"))
META = Format(name="Meta", of_layer="layers.{i}.", ignored=("rope.freqs", "text_model.rope.freqs"))
GGUF = Format(name="GGUF", of_layer="blk.{i}.")


def _same(hugging_face: str, meta: str | None, gguf: str) -> dict[Format, Theirs]:
    """Returns columns that store a parameter unchanged; `meta` None: Meta's layout lacks it."""
    found = {HUGGING_FACE: Theirs(name=hugging_face), GGUF: Theirs(name=gguf)}
    return found if meta is None else found | {META: Theirs(name=meta)}


def _halves(hugging_face: str, meta: str | None, gguf: str) -> dict[Format, Theirs]:
    """Returns columns with Hugging Face's order of rows; in GGUF, converters have undone it."""
    return (_same(hugging_face, meta, gguf)
            | {HUGGING_FACE: Theirs(name=hugging_face, has_halves=True)})


def _of_experts(gguf: str, *, is_transposed: bool = False) -> dict[Format, Theirs]:
    """Returns the columns of a layer with experts; the other formats' are in `expert_names`."""
    return {GGUF: Theirs(name=f"{gguf}.weight", is_transposed=is_transposed)}


# The largest come first. Loading needs memory for one tensor twice, and in this order that happens
# to a large one only while the model is almost empty.
TABLE = Table(
    once=(
        # Llama 1 and 2 cut the columns of the embedding, Llama 3 its rows. `meta_shards` finds out
        # from the shapes.
        Row(ours="tok_embeddings.weight", cut=0, role="embedding",
            theirs=_same("model.embed_tokens.weight", "tok_embeddings.weight",
                         "token_embd.weight")),
        Row(ours="output.weight", cut=0, role="head",
            theirs=_same("lm_head.weight", "output.weight", "output.weight")),
        Row(ours="norm.weight",
            theirs=_same("model.norm.weight", "norm.weight", "output_norm.weight")),
    ),
    per_layer=(
        Row(ours="attention_norm.weight",
            theirs=_same("input_layernorm.weight", "attention_norm.weight", "attn_norm.weight")),
        Row(ours="attention.wq.weight", cut=0, heads="n_heads", role="queries",
            theirs=_halves("self_attn.q_proj.weight", "attention.wq.weight", "attn_q.weight")),
        Row(ours="attention.wk.weight", cut=0, heads="n_kv_heads", role="keys",
            theirs=_halves("self_attn.k_proj.weight", "attention.wk.weight", "attn_k.weight")),
        Row(ours="attention.wv.weight", cut=0, heads="n_kv_heads",
            theirs=_same("self_attn.v_proj.weight", "attention.wv.weight", "attn_v.weight")),
        Row(ours="attention.wo.weight", cut=1,
            theirs=_same("self_attn.o_proj.weight", "attention.wo.weight", "attn_output.weight")),
        Row(ours="ffn_norm.weight",
            theirs=_same("post_attention_layernorm.weight", "ffn_norm.weight", "ffn_norm.weight")),
        Row(ours="feed_forward.w_gate.weight", cut=0,
            theirs=_same("mlp.gate_proj.weight", "feed_forward.w1.weight", "ffn_gate.weight")),
        Row(ours="feed_forward.w_up.weight", cut=0,
            theirs=_same("mlp.up_proj.weight", "feed_forward.w3.weight", "ffn_up.weight")),
        Row(ours="feed_forward.w_down.weight", cut=1,
            theirs=_same("mlp.down_proj.weight", "feed_forward.w2.weight", "ffn_down.weight")),
        Row(ours="feed_forward.router.directions.weight", theirs=_of_experts("ffn_gate_inp")),
        Row(ours="feed_forward.experts.w_gate", cut=2,
            theirs=_of_experts("ffn_gate_exps", is_transposed=True)),
        Row(ours="feed_forward.experts.w_up", cut=2,
            theirs=_of_experts("ffn_up_exps", is_transposed=True)),
        Row(ours="feed_forward.experts.w_down", cut=1,
            theirs=_of_experts("ffn_down_exps", is_transposed=True)),
        Row(ours="feed_forward.shared.w_gate.weight", cut=0, theirs=_of_experts("ffn_gate_shexp")),
        Row(ours="feed_forward.shared.w_up.weight", cut=0, theirs=_of_experts("ffn_up_shexp")),
        Row(ours="feed_forward.shared.w_down.weight", cut=1, theirs=_of_experts("ffn_down_shexp")),
        # Biases, which no published Llama has. The biases of wq and wk are ordered like their rows.
        # A bias that is added to a sum over shards is whole in each shard.
        Row(ours="attention.wq.bias", cut=0, heads="n_heads",
            theirs=_halves("self_attn.q_proj.bias", None, "attn_q.bias")),
        Row(ours="attention.wk.bias", cut=0, heads="n_kv_heads",
            theirs=_halves("self_attn.k_proj.bias", None, "attn_k.bias")),
        Row(ours="attention.wv.bias", cut=0, heads="n_kv_heads",
            theirs=_same("self_attn.v_proj.bias", None, "attn_v.bias")),
        Row(ours="attention.wo.bias",
            theirs=_same("self_attn.o_proj.bias", None, "attn_output.bias")),
        Row(ours="feed_forward.w_gate.bias", cut=0,
            theirs=_same("mlp.gate_proj.bias", None, "ffn_gate.bias")),
        Row(ours="feed_forward.w_up.bias", cut=0,
            theirs=_same("mlp.up_proj.bias", None, "ffn_up.bias")),
        Row(ours="feed_forward.w_down.bias",
            theirs=_same("mlp.down_proj.bias", None, "ffn_down.bias")),
    ),
)


def groups(
    params: Mapping[str, tuple[int, ...]], n_layers: int, *, table: Table = TABLE
) -> list[tuple[int | None, dict[str, Row]]]:
    """Returns the rows that apply to a model with these parameters, in groups.

    A group is (None, one row) for each parameter of the model itself, and (i, rows) for layer i.
    Rows of parameters that the model or the layer lacks are left out. Raises ValueError naming
    parameters without a row.
    """
    found = [(None, {row.ours: row}) for row in table.once]
    found += [(i, {OF_LAYER.format(i=i) + row.ours: row for row in table.per_layer})
              for i in range(n_layers)]
    found = [(i, {ours: row for ours, row in rows.items() if ours in params}) for i, rows in found]
    found = [(i, rows) for i, rows in found if rows]
    if unknown := sorted(set(params).difference(*(rows for _, rows in found))):
        raise ValueError("every parameter needs a row in checkpoint.names.TABLE; there is none for "
                         f"{', '.join(unknown[:4])}. Add it")
    return found


def shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter under our name, in the order of the table.

    A tied head is left out. What is not the text model's comes last, in the order of the model.
    """
    params = param_shapes(config)
    is_seeing = isinstance(config, (VisionLlamaConfig, FusionLlamaConfig))
    of_text = param_shapes(config.text) if is_seeing else params
    found = {ours: params[ours] for _, rows in groups(of_text, config.n_layers) for ours in rows}
    return found | params
