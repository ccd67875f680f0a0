"""The same Llama in transformers, with our weights copied: the independent reference of several
tests.
"""

import torch
import transformers

from llama_from_scratch.checkpoint.plain import biases_of, ffn_dim_of
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
        "feed_forward.w_": "mlp.", "attention.w": "self_attn.", "mlp.gate.": "mlp.gate_proj.",
        "mlp.up.": "mlp.up_proj.", "mlp.down.": "mlp.down_proj.",
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
    if ".wq." not in name and ".wk." not in name:
        return weight
    pairs = weight.view(-1, head_dim // 2, 2, *weight.shape[1:])
    return pairs.transpose(1, 2).reshape(weight.shape)


def twin_of(model):
    """The same model in transformers, built from our config and weights."""
    config = model.config
    scaling = config.rope_scaling
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rope_linear_factor != 1:
        rope |= {"rope_type": "linear", "factor": config.rope_linear_factor}
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
        head_dim=config.head_dim, mlp_bias=biases_of(config)["ffn"],
        attention_bias=config.has_qkv_bias or config.has_wo_bias, attn_implementation="eager"))
    weights = {hugging_face_name(n): hugging_face_layout(n, w.detach(), config.head_dim)
               for n, w in model.named_parameters()}
    if config.is_tied:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    if config.has_qkv_bias and not config.has_wo_bias:  # they have all four or none
        weights |= {f"model.layers.{i}.self_attn.o_proj.bias": torch.zeros(config.dim)
                    for i in range(config.n_layers)}
    twin.load_state_dict(weights, strict=True)
    return twin
