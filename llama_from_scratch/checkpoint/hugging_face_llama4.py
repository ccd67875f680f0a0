"""config.json of a Llama 4's text model in Hugging Face's layout <-> our config.

Two keys are easily misread. `no_rope_layers` has 1 for each layer *with* RoPE and 0 for each layer
without. `intermediate_size` is the width of each expert, and `intermediate_size_mlp` the width of
layers without experts. A key that would change the arithmetic is refused and never ignored. A
missing key has the default of transformers, which is Scout.

Notebook 23. Source: transformers, models/llama4/configuration_llama4.py, releases 4.51 to 5.24.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from llama_from_scratch.checkpoint.expert_layers import (
    ExpertLayers,
    every,
    expert_layers,
    step_of,
)
from llama_from_scratch.checkpoint.hugging_face_config import IGNORED, rope_from, rope_to
from llama_from_scratch.config import Experts, LlamaConfig, TemperatureTuning
from llama_from_scratch.foreign import shown

KIND, ARCHITECTURE = "llama4_text", "Llama4ForCausalLM"
_CHUNKED, _FULL = "chunked_attention", "full_attention"
_SIZES = {"hidden_size": "dim", "num_attention_heads": "n_heads",
          "num_key_value_heads": "n_kv_heads", "vocab_size": "vocab_size",
          "head_dim": "explicit_head_dim", "intermediate_size_mlp": "ffn_dim",
          "max_position_embeddings": "max_seq_len", "rms_norm_eps": "norm_eps",
          "tie_word_embeddings": "is_tied"}
_DEFAULTS = {
    "hidden_size": 5120, "num_attention_heads": 40, "num_key_value_heads": 8, "vocab_size": 202048,
    "head_dim": 128, "intermediate_size": 8192, "intermediate_size_mlp": 16384,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    "num_hidden_layers": 48, "num_experts_per_tok": 1, "num_local_experts": 16,
    "interleave_moe_layer_step": 1, "no_rope_layer_interval": 4, "use_qk_norm": True,
    "attn_temperature_tuning": True, "floor_scale": 8192, "attn_scale": 0.1}
_THETA, _CHUNK = 5e5, 8192
# What a Llama 4 computes; another value means another model. null means the default.
_MUST_BE = {"hidden_act": ("silu", "swish"), "attention_dropout": (0,), "attention_bias": (False,),
            "mlp_bias": (False,), "partial_rotary_factor": (1,)}
_READ = {*_DEFAULTS, *_MUST_BE, "model_type", "architectures", "rope_theta", "rope_scaling",
         "rope_parameters", "no_rope_layers", "moe_layers", "layer_types", "attention_chunk_size"}
# About training, and about the programs that quantize.
_IGNORED_TOO = {"output_router_logits", "router_aux_loss_coef", "router_jitter_noise",
                "for_llm_compressor"}


def config_from(
    about: Any, *, where: str | Path = "config.json", max_layers: int | None = None
) -> LlamaConfig:
    """Returns our config for the content of a config.json with the `model_type` "llama4_text".

    `max_layers`: refuses more layers, because a forged number would allocate memory. Raises
    ValueError naming each key that is missing, unknown, or requires other arithmetic.
    """
    if not isinstance(about, Mapping) or about.get("model_type", KIND) != KIND:
        raise ValueError(f"{where} must say \"model_type\": \"{KIND}\" for the text model of a "
                         "Llama 4. Download it again")
    if (made_for := about.get("architectures")) not in (None, [ARCHITECTURE]):
        raise ValueError(f"{where} must be for a {ARCHITECTURE}, which predicts the next token; "
                         f"got {shown(made_for)}. Load a language model")
    chunk_size = about.get("attention_chunk_size", _CHUNK)  # null is a value here: no chunks
    about = _DEFAULTS | {key: value for key, value in about.items() if value is not None}
    problems = [f"{key} is {shown(about[key])}, and only {allowed[0]!r} can be computed"
                for key, allowed in _MUST_BE.items()
                if key in about and about[key] not in allowed]
    problems += [f"{key} is not a key that is known" for key in about
                 if key not in _READ | IGNORED | _IGNORED_TOO]
    problems += [f"{key} is {shown(about[key])}, not true or false"
                 for key in ("use_qk_norm", "tie_word_embeddings") if type(about[key]) is not bool]
    # The first releases have a number, whose only effect is that it is not 0.
    if type(about["attn_temperature_tuning"]) not in (bool, int):
        problems.append(f"attn_temperature_tuning is {shown(about['attn_temperature_tuning'])}, "
                        "not true or false")
    n_layers = about["num_hidden_layers"]
    if type(n_layers) is not int or n_layers < 1 or (
            max_layers is not None and n_layers > max_layers):
        problems.append(f"num_hidden_layers is {shown(n_layers)}, and the files hold {max_layers} "
                        "tensors in all")
    else:
        problems += _layer_problems(about, n_layers, chunk_size)
    if problems:
        raise ValueError(f"{where} describes no model of this version: {'; '.join(problems[:8])}. "
                         "Remove a key only if you are sure that it does not change what the "
                         "model computes")
    theta, scaling, linear_factor = rope_from(_with_theta(about), where=where)
    try:
        layers = _layers(about, n_layers, chunk_size)
        return LlamaConfig(
            **{ours: about[theirs] for theirs, ours in _SIZES.items()}, rope_theta=theta,
            rope_scaling=scaling, rope_linear_factor=linear_factor, layers=layers.specs())
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where} describes no model of this version: {error}") from error


def _with_theta(about: Mapping[str, Any]) -> Mapping[str, Any]:
    rope = about.get("rope_parameters")
    has_theta = isinstance(rope, Mapping) and rope.get("rope_theta") is not None
    return about if has_theta else {"rope_theta": _THETA} | about


def _layer_problems(about: Mapping[str, Any], n_layers: int, chunk_size: Any) -> list[str]:
    """Returns what is wrong with the keys that say which kind each layer is."""
    problems = []
    with_rope = about.get("no_rope_layers") or [1] * n_layers
    if (not isinstance(with_rope, list) or len(with_rope) < n_layers
            or any(type(each) not in (int, bool) or each not in (0, 1) for each in with_rope)):
        problems.append(f"no_rope_layers is {shown(with_rope)}, not 0 or 1 for each of {n_layers} "
                        "layers; 1 is a layer with RoPE")
    kinds = about.get("layer_types", [_FULL] * n_layers)
    if (not isinstance(kinds, list) or len(kinds) != n_layers
            or any(kind not in (_CHUNKED, _FULL) for kind in kinds)):
        problems.append(f"layer_types is {shown(kinds)}, not '{_CHUNKED}' or '{_FULL}' for each of "
                        f"{n_layers} layers")
    elif _CHUNKED in kinds and chunk_size is None:
        problems.append(f"layer_types has '{_CHUNKED}', and attention_chunk_size is null")
    moe = about.get("moe_layers", [0])
    if (not isinstance(moe, list) or any(type(i) is not int for i in moe) or not moe
            or moe != sorted(set(moe)) or not 0 <= moe[0] <= moe[-1] < n_layers):
        problems.append(f"moe_layers is {shown(moe)}, not ascending numbers of layers below "
                        f"{n_layers}, with at least one")
    for key in ("interleave_moe_layer_step", "no_rope_layer_interval"):
        if type(about[key]) is not int or about[key] < 1:
            problems.append(f"{key} is {shown(about[key])}, not an int above 0")
    if not problems and "moe_layers" not in about and (
            about["interleave_moe_layer_step"] > n_layers):
        problems.append(f"interleave_moe_layer_step is {about['interleave_moe_layer_step']}, "
                        f"and with {n_layers} layers none would have experts")
    return problems


def _layers(about: Mapping[str, Any], n_layers: int, chunk_size: Any) -> ExpertLayers:
    if given := about.get("no_rope_layers"):
        without_rope = tuple(i for i in range(n_layers) if not given[i])
    else:
        without_rope = every(about["no_rope_layer_interval"], n_layers)
    if "layer_types" in about:
        chunked = tuple(i for i, kind in enumerate(about["layer_types"]) if kind == _CHUNKED)
    elif chunk_size is None:
        chunked = ()
    else:
        chunked = tuple(i for i in range(n_layers) if i not in without_rope)
    with_experts = about.get("moe_layers", every(about["interleave_moe_layer_step"], n_layers))
    width, floor = about["intermediate_size"], about["floor_scale"]
    return ExpertLayers(
        n_layers=n_layers, with_experts=tuple(with_experts), without_rope=without_rope,
        experts=Experts(n_experts=about["num_local_experts"],
                        n_active=about["num_experts_per_tok"], width=width, shared_width=width),
        chunked=chunked, chunk_size=chunk_size, has_qk_norm=about["use_qk_norm"],
        temperature=TemperatureTuning(
            floor=int(floor) if isinstance(floor, float) and floor.is_integer() else floor,
            strength=about["attn_scale"]) if about["attn_temperature_tuning"] else None,
        ffn_dim=about["intermediate_size_mlp"])


def config_to(config: LlamaConfig, *, dtype: torch.dtype) -> dict[str, Any]:
    """Returns the content of a config.json, with keys that both transformers 4 and 5 read.

    Raises ValueError for layers that it cannot describe.
    """
    layers = expert_layers(config, rule=(
        "in the config.json of a Llama 4 all layers with RoPE norm queries and keys or none, the "
        "others have one temperature, and all experts are alike"))
    tuning = layers.temperature
    return {
        "architectures": [ARCHITECTURE], "model_type": KIND,
        **{theirs: getattr(config, ours) for theirs, ours in _SIZES.items()},
        "head_dim": config.head_dim, "intermediate_size": layers.experts.width,
        "intermediate_size_mlp": layers.ffn_dim, "num_hidden_layers": config.n_layers,
        "num_experts_per_tok": layers.experts.n_active,
        "num_local_experts": layers.experts.n_experts,
        "moe_layers": list(layers.with_experts),
        "interleave_moe_layer_step": step_of(layers.with_experts, config.n_layers) or 1,
        "no_rope_layers": [int(i not in layers.without_rope) for i in range(config.n_layers)],
        "layer_types": [_CHUNKED if i in layers.chunked else _FULL
                        for i in range(config.n_layers)],
        "attention_chunk_size": layers.chunk_size, "use_qk_norm": layers.has_qk_norm,
        "attn_temperature_tuning": tuning is not None,
        "floor_scale": _DEFAULTS["floor_scale"] if tuning is None else tuning.floor,
        "attn_scale": _DEFAULTS["attn_scale"] if tuning is None else tuning.strength,
        "hidden_act": "silu", "attention_bias": False, **rope_to(config),
        "torch_dtype": str(dtype).removeprefix("torch."),
    }
