"""The same Llama in transformers, with our weights copied: the independent reference of several
tests.
"""

import torch
import transformers

from llama_from_scratch.checkpoint.plain import ffn_dim_of
from llama_from_scratch.model.transformer import Llama


def loud(config):
    """A model whose weights are large enough for every part to matter to the logits."""
    torch.manual_seed(0)
    model = Llama(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(1.0,
                           0.3) if weight.ndim == 1 else weight.normal_(
                               std=1.0 / weight.shape[1] ** 0.5)
    return model


def hugging_face_name(name):
    for ours, theirs in {
        "tok_embeddings": "model.embed_tokens", "layers.": "model.layers.",
        "attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
        "feed_forward.w_": "mlp.", "attention.w": "self_attn.", "gate.weight": "gate_proj.weight",
        "up.weight": "up_proj.weight", "down.weight": "down_proj.weight",
        "self_attn.q.": "self_attn.q_proj.", "self_attn.k.": "self_attn.k_proj.",
        "self_attn.v.": "self_attn.v_proj.",
        "self_attn.o.": "self_attn.o_proj.", "output": "lm_head",
    }.items():
        name = name.replace(ours, theirs)
    return "model.norm.weight" if name == "norm.weight" else name


def hugging_face_layout(name, weight, head_dim):
    """Their RoPE pairs channel r with r + K/2: rows 0, 2, 4, ... of each head come first, then rows
    1, 3, 5, ...
    """
    if not name.endswith(("wq.weight", "wk.weight")):
        return weight
    return weight.view(-1, head_dim // 2, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def twin_of(model):
    """The same model in transformers, built from our config and weights."""
    config = model.config
    scaling = config.rope_scaling
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    if scaling is not None:
        rope |= {"rope_type": "llama3", "factor": scaling.factor,
                 "low_freq_factor": scaling.low_freq_factor,
                 "high_freq_factor": scaling.high_freq_factor,
                 "original_max_position_embeddings": scaling.original_max_seq_len}
    twin = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        hidden_size=config.dim, num_hidden_layers=config.n_layers,
        intermediate_size=ffn_dim_of(config, rule="a twin has plain layers"),
        num_attention_heads=config.n_heads, num_key_value_heads=config.n_kv_heads,
        vocab_size=config.vocab_size, max_position_embeddings=config.max_seq_len,
        rms_norm_eps=config.norm_eps, rope_parameters=rope, tie_word_embeddings=config.is_tied,
        attn_implementation="eager"))
    weights = {hugging_face_name(n): hugging_face_layout(n, w.detach(), config.head_dim)
               for n, w in model.named_parameters()}
    if config.is_tied:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    twin.load_state_dict(weights, strict=True)
    return twin
