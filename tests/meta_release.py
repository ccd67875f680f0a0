"""A checkpoint as Meta's programs would have written it, spelled out by hand, and changes to
one."""

import json

import torch
from tiny_checkpoints import tokenizer_for

from llama_from_scratch.checkpoint import meta
from llama_from_scratch.checkpoint.opened import build

AXIS = {"wq": 0, "wk": 0, "wv": 0, "w1": 0, "w3": 0, "output": 0, "wo": 1, "w2": 1}


def as_released(folder, model, *, n_shards=1, **more):
    """The same model as Meta's programs would have written it, spelled out by hand: the reference
    for `meta.read`.
    """
    config = model.config
    is_old = config.rope_theta == 1e4
    params = {"dim": config.dim, "multiple_of": 32, "n_heads": config.n_heads,
              "n_layers": config.n_layers,
              "norm_eps": config.norm_eps, "vocab_size": -1 if is_old else config.vocab_size}
    if not is_old:
        params |= {"n_kv_heads": config.n_kv_heads, "rope_theta": config.rope_theta}
        params |= {"use_scaled_rope": True} if config.rope_scaling else {}
    whole = {}
    for name, weight in model.state_dict(keep_vars=False).items():
        for ours, theirs in {"w_gate": "w1", "w_up": "w3", "w_down": "w2"}.items():
            name = name.replace(ours, theirs)
        whole[name] = weight
    folder.mkdir()
    for i in range(n_shards):
        shard = {"rope.freqs": torch.zeros(config.head_dim // 2)}
        for name, weight in whole.items():
            axis = (1 if is_old
                    else 0) if "tok_embeddings" in name else AXIS.get(name.split(".")[-2])
            shard[name] = (weight.clone() if axis is None
                           else weight.chunk(n_shards, dim=axis)[i].clone())
        torch.save(shard, folder / f"consolidated.{i:02}.pth")
    (folder / "params.json").write_text(json.dumps(params | more))
    tokenizer_for("llama-1" if is_old else "llama-3").save(folder / "tokenizer.model")
    return folder


def edit(folder, change, shard=0):
    file = folder / f"consolidated.{shard:02}.pth"
    tensors = torch.load(file, weights_only=True)
    change(tensors)
    torch.save(tensors, file)


def edit_params(folder, **changes):
    params = json.loads((folder / "params.json").read_text()) | changes
    (folder / "params.json").write_text(
        json.dumps({k: v for k, v in params.items() if v != "remove"}))


def load(folder, **how):
    """The model of a checkpoint in Meta's layout."""
    return build(meta.open_checkpoint(folder), **how)
