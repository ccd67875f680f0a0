"""config.json in Hugging Face's layout, with the keys of transformers 4 and 5 <-> our config.

A key that would change the arithmetic is refused and never ignored. A missing key has the default
of transformers.

Notebook 18. Llama 1 to 3.3; Llama 4 is in `hugging_face_llama4`. Source: transformers,
models/llama/configuration_llama.py and modeling_rope_utils.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from llama_from_scratch.checkpoint.plain import biases_of, ffn_dim_of, plain_layers
from llama_from_scratch.config import LlamaConfig, RopeScaling

_SIZES = {"hidden_size": "dim", "num_attention_heads": "n_heads", "vocab_size": "vocab_size"}
_NEEDED = (*_SIZES, "intermediate_size", "num_hidden_layers")
# `config_from` reads these.
_READ = {*_NEEDED, "model_type", "architectures", "num_key_value_heads", "head_dim",
         "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling",
         "rope_parameters", "sliding_window", "layer_types", "quantization_config", "quantization"}
# What a Llama computes; another value means another model. null means the default, as in every key.
_MUST_BE = {"hidden_act": ("silu", "swish"), "attention_dropout": (0,), "hidden_dropout": (0,),
            "partial_rotary_factor": (1,), "rotary_pct": (1,), "rope_interleaved": (False,),
            "residual_multiplier": (1,), "embedding_multiplier": (1,), "logits_scaling": (1,),
            "logit_scale": (1,), "use_qk_norm": (False,), "qk_layernorm": (False,),
            "use_bias": (False,), "num_experts": (0,), "num_local_experts": (0,)}
_CLAIMS = ("attention_bias", "mlp_bias", "tie_word_embeddings", "use_sliding_window")
# Keys that do not change the logits. They are about training, generation, files and the program
# that wrote the files.
IGNORED = {
    # the program that wrote the file, and where it came from
    "_name_or_path", "_commit_hash", "_from_model_config", "_post_init_done",
    "transformers_version", "transformers_weights", "torch_dtype", "dtype", "auto_map",
    "custom_pipelines",
    "transformers.js_config", "unsloth_version", "unsloth_fixed", "unsloth_training_args",
    "is_llama_config", "tokenizer_class", "name", "model_name", "license", "base_model",
    # how it is run
    "_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal",
    "_experts_implementation", "_experts_implementation_internal", "_flash_attn_2_enabled",
    "_output_attentions", "attn_implementation", "use_flash_attention_2", "use_flash_attn",
    "use_cache", "pretraining_tp", "torchscript", "use_bfloat16", "fp16", "bf16",
    "gradient_checkpointing", "use_return_dict", "return_dict", "output_attentions",
    "output_hidden_states", "keys_to_ignore_at_inference", "device_map", "hf_device_map",
    "tp_plan", "base_model_tp_plan", "base_model_pp_plan", "chunk_size_feed_forward",
    "max_window_layers",
    # training
    "initializer_range", "loss_type", "problem_type", "finetuning_task", "task_specific_params",
    "neftune_noise_alpha", "id2label", "label2id", "num_labels", "ignore_index",
    "tf_legacy_loss", "pruned_heads", "max_sequence_length", "model_max_length",
    # other kinds of models; every config has these keys
    "is_decoder", "is_encoder_decoder", "add_cross_attention", "cross_attention_hidden_size",
    "tie_encoder_decoder", "decoder_start_token_id",
    # the tokenizer
    "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id",
    "mask_token_id", "cls_token_id", "bos_token", "eos_token", "pad_token", "unk_token", "prefix",
    # generation
    "max_length", "max_new_tokens", "min_length", "min_new_tokens", "max_time", "stop_strings",
    "do_sample", "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty",
    "temperature", "top_k", "top_p", "top_h", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff",
    "penalty_alpha", "repetition_penalty", "encoder_repetition_penalty", "length_penalty",
    "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "force_words_ids",
    "constraints", "sequence_bias", "guidance_scale", "watermarking_config", "dola_layers",
    "num_return_sequences", "output_scores", "output_logits", "return_dict_in_generate",
    "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values",
    "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens",
    "renormalize_logits", "low_memory", "cache_implementation", "cache_config", "max_cache_len",
    "prefill_chunk_size", "compile_config", "disable_compile", "continuous_batching_config",
    "token_healing", "is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule",
    "assistant_confidence_threshold", "assistant_early_exit", "assistant_ensemble_weight",
    "assistant_lookbehind", "target_lookbehind", "prompt_lookup_num_tokens",
    "max_matching_ngram_size", "speculation_type", "use_mtp",
}
_PARTS = {"mllama_text_model": "the encoder that its cross-attention layers look at"}
"""Kinds that are only a part of a model, and what the part needs."""


_ARCHITECTURES = (["LlamaForCausalLM"], ["LLaMAForCausalLM"])
"""The first converters used the second spelling."""


def config_from(
    about: Any, *, where: str | Path = "config.json", max_layers: int | None = None
) -> LlamaConfig:
    """Returns our config for the content of a config.json, with the keys of transformers 4 or 5.

    A missing key has the default of their `LlamaConfig`. `max_layers`: refuses more layers, because
    a forged number would allocate memory. Raises ValueError naming each key that is missing,
    unknown, or requires other arithmetic.
    """
    if not isinstance(about, Mapping):
        raise ValueError(f"{where} must hold a JSON object; got {type(about).__name__}. Download "
                         "it again")
    kind = about.get("model_type")
    if isinstance(kind, str) and kind in _PARTS:
        raise ValueError(f"a checkpoint must be a whole model; {where} is for a {kind!r} model, "
                         f"which needs {_PARTS[kind]}. Load the model that it is a part of")
    if kind != "llama":
        raise ValueError(f"{where} must say \"model_type\": \"llama\"; got {kind!r}. Only Llamas "
                         "can be loaded")
    if (made_for := about.get("architectures")) is not None and made_for not in _ARCHITECTURES:
        raise ValueError(f"{where} must be for a LlamaForCausalLM, which predicts the next token; "
                         f"got {made_for!r:.80}. Load a language model")
    about = {key: value for key, value in about.items() if value is not None}
    problems = [f"{key} is missing" for key in _NEEDED if key not in about]
    problems += [f"{key} is {about[key]!r:.80}, and only {allowed[0]!r} can be computed"
                 for key, allowed in _MUST_BE.items()
                 if key in about and about[key] not in allowed]
    problems += [f"{key} is {about[key]!r:.80}, not true or false" for key in _CLAIMS
                 if not isinstance(about.get(key, False), bool)]
    problems += _windows(about)
    problems += [f"{key} says that the weights are quantized, which cannot be read"
                 for key in ("quantization_config", "quantization") if key in about]
    problems += [f"{key} is not a key that is known" for key in about
                 if key not in {*_READ, *_MUST_BE, *_CLAIMS, *IGNORED}]
    n_layers = about.get("num_hidden_layers")
    if type(n_layers) is not int or (max_layers is not None and n_layers > max_layers):
        problems.append(f"num_hidden_layers is {n_layers!r:.80}, and the files hold {max_layers} "
                        "tensors in all")
    if problems:
        raise ValueError(f"{where} describes no model of this version: {'; '.join(problems[:8])}. "
                         "Remove a key only if you are sure that it does not change what the "
                         "model computes")
    theta, scaling, linear_factor = rope_from(about, where=where)
    has_attention_bias = about.get("attention_bias", False)
    try:
        return LlamaConfig(
            **{ours: about[theirs] for theirs, ours in _SIZES.items()},
            n_kv_heads=about.get("num_key_value_heads", about["num_attention_heads"]),
            **plain_layers(n_layers, ffn_dim=about["intermediate_size"],
                           has_ffn_bias=about.get("mlp_bias", False)),
            max_seq_len=about.get("max_position_embeddings", 2048),
            norm_eps=about.get("rms_norm_eps", 1e-6), rope_theta=theta, rope_scaling=scaling,
            rope_linear_factor=linear_factor,
            is_tied=about.get("tie_word_embeddings", False),
            explicit_head_dim=about.get("head_dim"),
            has_qkv_bias=has_attention_bias, has_wo_bias=has_attention_bias)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where} describes no model of this version: {error}") from error


def _windows(about: Mapping[str, Any]) -> list[str]:
    """Returns the problems with a config in which a token does not see all earlier tokens.

    A window that is switched off, or is as long as the context, is no problem.
    """
    problems = []
    window, context = about.get("sliding_window"), about.get("max_position_embeddings", 2048)
    if about.get("use_sliding_window", True) and window is not None and (
            type(window) is not int or type(context) is not int or window < context):
        problems.append(f"sliding_window is {window!r:.80}, and only null can be computed, or at "
                        "least max_position_embeddings")
    kinds, n_layers = about.get("layer_types"), about.get("num_hidden_layers")
    if kinds is not None and (not isinstance(kinds, list) or len(kinds) != n_layers
                              or any(kind != "full_attention" for kind in kinds)):
        problems.append(f"layer_types is {kinds!r:.80}, and only 'full_attention' can be computed, "
                        "once for each layer")
    return problems


_NEUTRAL_AT_FACTOR_ONE = {
    "default": ("original_max_position_embeddings",),
    "linear": ("original_max_position_embeddings",),
    "dynamic": ("original_max_position_embeddings",),
    "yarn": ("original_max_position_embeddings", "beta_fast", "beta_slow", "truncate"),
}
"""Kinds of scaling that change no angle if their factor is 1, and the keys without effect then."""


def rope_from(
    about: Mapping[str, Any], *, where: str | Path
) -> tuple[Any, RopeScaling | None, Any]:
    """Returns theta, scaling as in Llama 3.1, and the factor of linear scaling, all unchecked.

    Raises ValueError for a scaling that is not built here. transformers 5 has theta and scaling in
    "rope_parameters", 4 in two keys.
    """
    old, new = about.get("rope_scaling", {}), about.get("rope_parameters", {})
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        raise ValueError(f"rope_scaling and rope_parameters must be JSON objects or null; {where} "
                         f"has {old!r:.80} and {new!r:.80}")
    old, new = ({key: value for key, value in part.items() if value is not None}
                for part in (old, new))
    rope = {**new, **old}
    kinds = (
        {str(part[key]) for part in (old, new) for key in ("rope_type", "type") if key in part}
        or {"default"})
    thetas = [part["rope_theta"] for part in (about, old, new) if "rope_theta" in part] or [1e4]
    if (len(kinds) > 1 or any(theta != thetas[0] for theta in thetas)
        or any(old[k] != new[k] for k in old.keys() & new.keys())):
        raise ValueError(f"{where} must describe RoPE in one way; it has {old} and {new}, theta "
                         f"{thetas}. Keep one of them")
    theta, kind = thetas[0], kinds.pop()
    keys = {"factor": "factor", "low_freq_factor": "low_freq_factor",
            "high_freq_factor": "high_freq_factor",
            "original_max_position_embeddings": "original_max_seq_len"}
    said = {key: value for key, value in rope.items()
            if key not in ("rope_type", "type", "rope_theta")
            and not (key == "partial_rotary_factor" and _is_one(value))}
    given = said.keys()
    if kind in _NEUTRAL_AT_FACTOR_ONE and _is_one(said.get("factor")):
        kind, given = "default", given - {"factor", *_NEUTRAL_AT_FACTOR_ONE[kind]}
    if kind == "default":
        if given:
            raise ValueError(f"unscaled RoPE must have only theta; {where} also has "
                             f"{', '.join(sorted(given))}. Remove it, or name the kind of scaling")
        return theta, None, 1.0
    if kind == "linear" and given - set(_NEUTRAL_AT_FACTOR_ONE[kind]) == {"factor"}:
        return theta, None, said["factor"]
    if kind not in ("llama3", "linear"):
        raise ValueError("RoPE can be scaled as in Llama 3.1 (\"llama3\"), by one factor "
                         f"(\"linear\"), or not at all (\"default\"); {where} requires "
                         f"{kind!r:.80}, which is not built here")
    if kind == "linear" or given != keys.keys():
        needed = "factor" if kind == "linear" else ", ".join(keys)
        raise ValueError(f"\"{kind}\" scaling of RoPE must have exactly {needed}; {where} has "
                         f"{', '.join(sorted(given)) or 'nothing'}")
    try:
        return theta, RopeScaling(**{ours: rope[theirs] for theirs, ours in keys.items()}), 1.0
    except ValueError as error:
        raise ValueError(f"{where} describes no model of this version: {error}") from error


def config_to(config: LlamaConfig, *, dtype: torch.dtype) -> dict[str, Any]:
    """Returns the content of a config.json, with keys that both transformers 4 and 5 read.

    Raises ValueError for layers and biases that it cannot describe.
    """
    ffn_dim = ffn_dim_of(config, rule=(
        "all layers in a config.json of a Llama must use RoPE and attend to all earlier tokens"))
    if config.dim % config.n_heads:
        raise ValueError("transformers loads a Llama only if num_attention_heads divides "
                         f"hidden_size; got {config.n_heads} heads and dim={config.dim}. Write "
                         "another format")
    if config.rope_scaling is not None and config.rope_linear_factor != 1:
        raise ValueError("a config.json can scale RoPE in only one way; got "
                         f"rope_linear_factor={config.rope_linear_factor} and "
                         f"{config.rope_scaling}. Write another format")
    biases = biases_of(config)
    if biases["qkv"] != biases["wo"]:
        raise ValueError("a config.json of a Llama has only one key for the biases of wq, wk, wv "
                         f"and wo; got has_qkv_bias={biases['qkv']} and "
                         f"has_wo_bias={biases['wo']}. Write another format")
    about = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "attention_bias": biases["qkv"], "mlp_bias": biases["ffn"], "hidden_act": "silu",
        "hidden_size": config.dim,
        "intermediate_size": ffn_dim, "head_dim": config.head_dim,
        "num_hidden_layers": config.n_layers, "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads, "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_seq_len, "rms_norm_eps": config.norm_eps,
        **rope_to(config),
        "tie_word_embeddings": config.is_tied,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }
    return about


def rope_to(config: LlamaConfig) -> dict[str, Any]:
    """Returns the keys of a config.json about RoPE."""
    about: dict[str, Any] = {"rope_theta": config.rope_theta, "rope_scaling": None}
    if config.rope_linear_factor != 1:
        about["rope_scaling"] = {"rope_type": "linear", "factor": config.rope_linear_factor}
    if (scaling := config.rope_scaling) is not None:
        about["rope_scaling"] = {
            "rope_type": "llama3", "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_seq_len}
    return about


def _is_one(value: Any) -> bool:
    return not isinstance(value, bool) and value == 1
