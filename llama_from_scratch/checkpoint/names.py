"""The same parameters under other names: one table per format, from ours to theirs, and the layout where it differs.

A Llama has nine tensors per layer and three besides. Meta's files cut each of them into shards along one axis; Hugging
Face's order the rows of wq and wk otherwise, as their RoPE turns channels r and r + K/2 together and ours, as Meta's,
2r and 2r + 1. Both differences are columns of the tables, and nothing outside this folder knows of them.

Notebook 18. Sources: llama-models, models/llama3/model.py; transformers, models/llama/convert_llama_weights_to_hf.py;
gguf-py, constants.py.
"""

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Shaped
from torch import Tensor

from llama_from_scratch.config import LlamaConfig, record


@record
class Name:
    """One parameter in one format; `{i}` stands for the layer.

    `axis`: what the format's shards are cut along, None where each holds the whole. `heads`: the rows are Hugging Face's
    halves of this many heads, "n_heads" or "n_kv_heads" of the config; None where they are as ours.
    """

    ours: str
    theirs: str
    axis: int | None = None
    heads: str | None = None


HUGGING_FACE = (
    Name(ours="tok_embeddings.weight", theirs="model.embed_tokens.weight"),
    Name(ours="output.weight", theirs="lm_head.weight"),
    Name(ours="norm.weight", theirs="model.norm.weight"),
    Name(ours="layers.{i}.attention_norm.weight", theirs="model.layers.{i}.input_layernorm.weight"),
    Name(ours="layers.{i}.attention.wq.weight", theirs="model.layers.{i}.self_attn.q_proj.weight", heads="n_heads"),
    Name(ours="layers.{i}.attention.wk.weight", theirs="model.layers.{i}.self_attn.k_proj.weight", heads="n_kv_heads"),
    Name(ours="layers.{i}.attention.wv.weight", theirs="model.layers.{i}.self_attn.v_proj.weight"),
    Name(ours="layers.{i}.attention.wo.weight", theirs="model.layers.{i}.self_attn.o_proj.weight"),
    Name(ours="layers.{i}.ffn_norm.weight", theirs="model.layers.{i}.post_attention_layernorm.weight"),
    Name(ours="layers.{i}.feed_forward.w_gate.weight", theirs="model.layers.{i}.mlp.gate_proj.weight"),
    Name(ours="layers.{i}.feed_forward.w_up.weight", theirs="model.layers.{i}.mlp.up_proj.weight"),
    Name(ours="layers.{i}.feed_forward.w_down.weight", theirs="model.layers.{i}.mlp.down_proj.weight"),
)

META = (
    # Llama 1 and 2 cut the columns of the embedding, Llama 3 its rows: `meta.py` sees it in the shapes.
    Name(ours="tok_embeddings.weight", theirs="tok_embeddings.weight", axis=0),
    Name(ours="output.weight", theirs="output.weight", axis=0),
    Name(ours="norm.weight", theirs="norm.weight"),
    Name(ours="layers.{i}.attention_norm.weight", theirs="layers.{i}.attention_norm.weight"),
    Name(ours="layers.{i}.attention.wq.weight", theirs="layers.{i}.attention.wq.weight", axis=0),
    Name(ours="layers.{i}.attention.wk.weight", theirs="layers.{i}.attention.wk.weight", axis=0),
    Name(ours="layers.{i}.attention.wv.weight", theirs="layers.{i}.attention.wv.weight", axis=0),
    Name(ours="layers.{i}.attention.wo.weight", theirs="layers.{i}.attention.wo.weight", axis=1),
    Name(ours="layers.{i}.ffn_norm.weight", theirs="layers.{i}.ffn_norm.weight"),
    Name(ours="layers.{i}.feed_forward.w_gate.weight", theirs="layers.{i}.feed_forward.w1.weight", axis=0),
    Name(ours="layers.{i}.feed_forward.w_up.weight", theirs="layers.{i}.feed_forward.w3.weight", axis=0),
    Name(ours="layers.{i}.feed_forward.w_down.weight", theirs="layers.{i}.feed_forward.w2.weight", axis=1),
)

# The rows of wq and wk are as ours: converters undo Hugging Face's order.
GGUF = (
    Name(ours="tok_embeddings.weight", theirs="token_embd.weight"),
    Name(ours="output.weight", theirs="output.weight"),
    Name(ours="norm.weight", theirs="output_norm.weight"),
    Name(ours="layers.{i}.attention_norm.weight", theirs="blk.{i}.attn_norm.weight"),
    Name(ours="layers.{i}.attention.wq.weight", theirs="blk.{i}.attn_q.weight"),
    Name(ours="layers.{i}.attention.wk.weight", theirs="blk.{i}.attn_k.weight"),
    Name(ours="layers.{i}.attention.wv.weight", theirs="blk.{i}.attn_v.weight"),
    Name(ours="layers.{i}.attention.wo.weight", theirs="blk.{i}.attn_output.weight"),
    Name(ours="layers.{i}.ffn_norm.weight", theirs="blk.{i}.ffn_norm.weight"),
    Name(ours="layers.{i}.feed_forward.w_gate.weight", theirs="blk.{i}.ffn_gate.weight"),
    Name(ours="layers.{i}.feed_forward.w_up.weight", theirs="blk.{i}.ffn_up.weight"),
    Name(ours="layers.{i}.feed_forward.w_down.weight", theirs="blk.{i}.ffn_down.weight"),
)


def shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter under our name, without making one; a tied head is left out.

    The embedding and the head come first: loading in this order holds the largest tensors twice only while the model is
    nearly empty.
    """
    D, F, V = config.dim, config.ffn_dim, config.vocab_size
    kv_dim = config.n_kv_heads * config.head_dim
    layer = {
        "attention_norm": (D,), "attention.wq": (D, D), "attention.wk": (kv_dim, D), "attention.wv": (kv_dim, D),
        "attention.wo": (D, D), "ffn_norm": (D,),
        "feed_forward.w_gate": (F, D), "feed_forward.w_up": (F, D), "feed_forward.w_down": (D, F),
    }
    head = {} if config.is_tied else {"output.weight": (V, D)}
    layers = {f"layers.{i}.{name}.weight": shape for i in range(config.n_layers) for name, shape in layer.items()}
    return {"tok_embeddings.weight": (V, D)} | head | {"norm.weight": (D,)} | layers


def expand(table: Iterable[Name], n_layers: int) -> dict[str, Name]:
    """The rows of a table for a model of `n_layers`, by our name."""
    rows = [Name(ours=row.ours.format(i=i), theirs=row.theirs.format(i=i), axis=row.axis, heads=row.heads)
            for row in table for i in (range(n_layers) if "{i}" in row.ours else (0,))]
    return {row.ours: row for row in rows}


def to_pairs(
    weight: Shaped[Tensor, "rows D"], n_heads: int, *, out: Shaped[Tensor, "rows D"] | None = None
) -> Shaped[Tensor, "rows D"]:
    """Rows of wq or wk from Hugging Face's order to ours: of each head, rows 0, K/2, 1, K/2 + 1, ...

    `out`: where they go, in its dtype; by default a new tensor like `weight`.
    """
    out = torch.empty_like(weight) if out is None else out
    out.view(n_heads, -1, 2, weight.shape[1]).copy_(weight.view(n_heads, 2, -1, weight.shape[1]).transpose(1, 2))
    return out


def to_halves(weight: Shaped[Tensor, "rows D"], n_heads: int) -> Shaped[Tensor, "rows D"]:
    """Rows of wq or wk from our order to Hugging Face's: of each head, rows 0, 2, 4, ..., then 1, 3, 5, ..."""
    return weight.view(n_heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def refuse_differences(found: Mapping[str, tuple[int, ...]], needed: Mapping[str, tuple[int, ...]], *, where: str) -> None:
    """Raises ValueError that lists what is missing, extra or misshapen among the tensors `found`, if anything is."""
    problems = [f"{name} is missing" for name in needed if name not in found]
    problems += [f"{name} is not of this model" for name in found if name not in needed]
    problems += [f"{name} is {tuple(found[name])}, not {needed[name]}"
                 for name in needed if name in found and tuple(found[name]) != needed[name]]
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError(f"the tensors in {where} must be those of its config; {'; '.join(sorted(problems)[:8])}{more}. "
                         "Copy or convert the checkpoint again, or correct the config")
