"""config.json in Hugging Face's layout <-> our config, in the words of transformers 4 and 5.

A key that would change the arithmetic is refused, never skipped; a key that is absent has the
default of transformers.

Notebook 18. Llama 1 to 3.3. Source: transformers, models/llama/configuration_llama.py and
modeling_rope_utils.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from llama_from_scratch.checkpoint.plain import ffn_dim_of, plain_layers
from llama_from_scratch.config import LlamaConfig, RopeScaling

_SIZES = {"hidden_size": "dim", "num_attention_heads": "n_heads", "vocab_size": "vocab_size"}
_NEEDED = (*_SIZES, "intermediate_size", "num_hidden_layers")
# Read by `config_from`, which knows what they mean.
_READ = {*_NEEDED, "model_type", "architectures", "num_key_value_heads", "head_dim",
         "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling",
         "rope_parameters", "tie_word_embeddings"}
# What a plain Llama computes. Another value is another model.
_MUST_BE = {"hidden_act": ("silu", "swish"), "attention_bias": (False,), "mlp_bias": (False,),
            "attention_dropout": (0,),
            "partial_rotary_factor": (1,), "sliding_window": (None,), "rope_interleaved": (False,),
            "layer_types": (None,)}
# What does not change the logits: about training, generation, files and the program that wrote
# them.
_IGNORED = {
    "_name_or_path", "_attn_implementation", "_flash_attn_2_enabled", "_commit_hash",
    "attn_implementation", "transformers_version", "torch_dtype", "dtype", "use_cache",
    "pretraining_tp", "initializer_range", "bos_token_id", "eos_token_id", "pad_token_id",
    "sep_token_id", "unk_token_id", "decoder_start_token_id", "max_sequence_length", "max_length",
    "model_max_length", "is_llama_config", "is_decoder", "is_encoder_decoder",
    "add_cross_attention", "tie_encoder_decoder", "output_attentions", "output_hidden_states",
    "return_dict", "return_dict_in_generate", "output_scores", "use_return_dict",
    "chunk_size_feed_forward", "cross_attention_hidden_size", "finetuning_task", "id2label",
    "label2id", "num_labels", "problem_type", "prefix", "pruned_heads", "task_specific_params",
    "tokenizer_class", "torchscript", "use_bfloat16", "tf_legacy_loss", "gradient_checkpointing",
    "neftune_noise_alpha", "unsloth_version", "unsloth_fixed", "min_length", "do_sample",
    "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty", "temperature", "top_k",
    "top_p", "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "forced_bos_token_id",
    "forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty",
    "suppress_tokens",
    "begin_suppress_tokens",
}
_LATER = {"mllama": "the vision encoder and cross-attention of Llama 3.2 Vision",
          "mllama_text_model": "the cross-attention layers of Llama 3.2 Vision",
          "llama4": "the experts and the vision of Llama 4",
          "llama4_text": "the experts of Llama 4"}


def config_from(
    about: Any, *, where: str | Path = "config.json", max_layers: int | None = None
) -> LlamaConfig:
    """Our config from the content of a config.json, in the words of transformers 4 or 5.

    A key that is absent has the default of their `LlamaConfig`. `max_layers`: refuses more, as a
    forged number would allocate. Raises ValueError naming each key that is missing, unknown or asks
    for another arithmetic.
    """
    if not isinstance(about, Mapping):
        raise ValueError(f"{where} must hold a JSON object; got {type(about).__name__}. Download "
                         "it again")
    kind = about.get("model_type")
    if isinstance(kind, str) and kind in _LATER:
        raise ValueError(f"{where} is of a {kind!r} model, which needs {_LATER[kind]}; this "
                         "version has the text models Llama 1 to 3.3. Load one of those")
    if kind != "llama":
        raise ValueError(f"{where} must say \"model_type\": \"llama\"; got {kind!r}. Only Llamas "
                         "can be loaded")
    if (made_for := about.get("architectures")) not in (None, ["LlamaForCausalLM"]):
        raise ValueError(f"{where} must be of a LlamaForCausalLM, which predicts the next token; "
                         f"got {made_for}. Load a language model")
    problems = [f"{key} is missing" for key in _NEEDED if key not in about]
    problems += [f"{key} is {about[key]!r}, and only {allowed[0]!r} can be computed"
                 for key, allowed in _MUST_BE.items() if key in about and about[key] not in allowed]
    if about.get("quantization_config") is not None:
        problems.append("quantization_config says that the weights are quantized, which cannot be "
                        "read")
    problems += [f"{key} is not a key that is known" for key in about
                 if key not in {*_READ, *_MUST_BE, *_IGNORED, "quantization_config"}]
    n_layers = about.get("num_hidden_layers")
    if type(n_layers) is not int or (max_layers is not None and n_layers > max_layers):
        problems.append(f"num_hidden_layers is {n_layers!r}, and the files hold {max_layers} "
                        "tensors in all")
    if problems:
        raise ValueError(f"{where} describes no model of this version: {'; '.join(problems[:8])}. "
                         "Remove a key only if you are sure that it does not change what the "
                         "model computes")
    heads = about["num_attention_heads"]
    theta, scaling = _rope(about, where=where)
    try:
        config = LlamaConfig(
            **{ours: about[theirs] for theirs, ours in _SIZES.items()},
            n_kv_heads=_or(about.get("num_key_value_heads"), heads),
            **plain_layers(n_layers, ffn_dim=about["intermediate_size"]),
            max_seq_len=about.get("max_position_embeddings", 2048),
            norm_eps=about.get("rms_norm_eps", 1e-6), rope_theta=theta, rope_scaling=scaling,
            is_tied=about.get("tie_word_embeddings", False))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where} describes no model of this version: {error}") from error
    if not isinstance(config.is_tied, bool):
        raise ValueError(f"{where} must say true or false for tie_word_embeddings; got "
                         f"{config.is_tied!r}")
    if _or(about.get("head_dim"), config.head_dim) != config.head_dim:
        raise ValueError(f"head_dim must be hidden_size / num_attention_heads = {config.head_dim} "
                         f"in every Llama up to 3.3; {where} has {about['head_dim']!r}. Models of "
                         "other proportions cannot be loaded")
    return config


def _rope(about: Mapping[str, Any], *, where: str | Path) -> tuple[Any, RopeScaling | None]:
    """theta, not yet checked, and scaling.

    transformers 5 has both in "rope_parameters", 4 in two keys.
    """
    old, new = _or(about.get("rope_scaling"), {}), _or(about.get("rope_parameters"), {})
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        raise ValueError(f"rope_scaling and rope_parameters must be JSON objects or null; {where} "
                         f"has {old!r} and {new!r}")
    rope = {**new, **old}
    kinds = (
        {str(part[key]) for part in (old, new) for key in ("rope_type", "type") if key in part}
        or {"default"})
    thetas = [part["rope_theta"] for part in (about, old, new) if "rope_theta" in part] or [1e4]
    if (len(kinds) > 1 or any(theta != thetas[0] for theta in thetas)
        or any(old[k] != new[k] for k in old.keys() & new.keys())):
        raise ValueError(f"{where} says several things about RoPE: {old} and {new}, theta "
                         f"{thetas}. Keep one of them")
    theta, kind = thetas[0], kinds.pop()
    keys = {"factor": "factor", "low_freq_factor": "low_freq_factor",
            "high_freq_factor": "high_freq_factor",
            "original_max_position_embeddings": "original_max_seq_len"}
    given = rope.keys() - {"rope_type", "type", "rope_theta"}
    if kind == "default":
        if given:
            raise ValueError(f"unscaled RoPE has theta and nothing else; {where} also has "
                             f"{', '.join(sorted(given))}")
        return theta, None
    if kind != "llama3":
        raise ValueError("RoPE is scaled as in Llama 3.1 (\"llama3\") or not at all "
                         f"(\"default\"); {where} asks for {kind!r}, which is not built")
    if given != keys.keys():
        raise ValueError(f"\"llama3\" scaling of RoPE has just {', '.join(keys)}; {where} has "
                         f"{', '.join(sorted(given))}")
    try:
        return theta, RopeScaling(**{ours: rope[theirs] for theirs, ours in keys.items()})
    except ValueError as error:
        raise ValueError(f"{where} describes no model of this version: {error}") from error


def config_to(config: LlamaConfig, *, dtype: torch.dtype) -> dict[str, Any]:
    """The content of a config.json, in the words that transformers 4 and 5 both read.

    Raises ValueError for layers that it has no words for.
    """
    ffn_dim = ffn_dim_of(config, rule=(
        "a config.json of a Llama has layers that all turn their heads and see everything before "
        "them"))
    about = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False,
        "mlp_bias": False, "hidden_act": "silu", "hidden_size": config.dim,
        "intermediate_size": ffn_dim, "head_dim": config.head_dim,
        "num_hidden_layers": config.n_layers, "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads, "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_seq_len, "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta, "rope_scaling": None,
        "tie_word_embeddings": config.is_tied,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }
    if (scaling := config.rope_scaling) is not None:
        about["rope_scaling"] = {
            "rope_type": "llama3", "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_seq_len}
    return about


def _or(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value
