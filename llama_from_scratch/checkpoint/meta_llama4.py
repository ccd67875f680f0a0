"""params.json of a Llama 4 in Meta's layout <-> our config of the text model.

The widths follow two rules. A layer without experts has the usual width of Meta's rule. The experts
begin with `ffn_exp` times dim, and with `auto_scale_F` they share that width: it is divided by
`capacity_factor` + 1, for the routed expert and the shared one. `max_seq_len` is in no released
file; without it the context is the base models'.

Notebook 23. Source: llama-models, models/llama4/args.py, model.py and moe.py.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_from_scratch import family
from llama_from_scratch.checkpoint.expert_layers import (
    ExpertLayers,
    every,
    expert_layers,
    step_of,
)
from llama_from_scratch.checkpoint.meta_params import refuse_other_number
from llama_from_scratch.config import (
    Experts,
    LlamaConfig,
    RopeScaling,
    TemperatureTuning,
    nearest,
)
from llama_from_scratch.foreign import shown

_MOE = {"num_experts": None, "capacity_factor": 1.0, "auto_scale_F": True, "top_k": 1,
        "interleave_moe_layer_step": 1}
"""The keys inside of "moe_args", with the defaults of Meta's code."""
_SCOUT = family.config("llama-4-scout-17b-16e-text")
_MULTIPLES, _MULTIPLIERS = (2048, 256, 32), (1.2, 1.0)
_FFN_EXP, _NORM_EPS, _MULTIPLE_OF = 4.0, 1e-5, 256


def config_from(
    params: Mapping[str, Any], *, vocab_size: int, is_tied: bool, where: str | Path = "params.json"
) -> LlamaConfig:
    """Returns our config of the text model for the content of params.json.

    `vocab_size`, `is_tied`: only the weights show them. Raises ValueError if a key is unknown or
    has an impossible value.
    """
    try:
        return _config(params, vocab_size=vocab_size, is_tied=is_tied)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where} describes no model of this version: {error}. Correct it, or "
                         "download it again") from error


def _config(params: Mapping[str, Any], *, vocab_size: int, is_tied: bool) -> LlamaConfig:
    moe = _moe_args(params)
    for key in ("dim", "n_layers", "n_heads", "n_kv_heads", "multiple_of", "attention_chunk_size",
                "nope_layer_interval"):
        if params.get(key) is not None:
            refuse_other_number(params, key, int)
    for key in ("ffn_dim_multiplier", "ffn_exp", "rope_scaling_factor", "rope_high_freq_factor",
                "floor_scale", "attn_scale"):
        if params.get(key) is not None:
            refuse_other_number(params, key, float)
    for key in ("use_scaled_rope", "use_qk_norm", "attn_temperature_tuning"):
        if type(params.get(key) or False) is not bool:
            raise ValueError(f"{key} must be true or false; got {shown(params[key])}")
    n_layers, chunk_size = params["n_layers"], params.get("attention_chunk_size")
    step = params.get("nope_layer_interval")
    without_rope = () if step is None else every(step, n_layers)
    width = _expert_width(params, moe)
    floor = params.get("floor_scale") or _tuning().floor
    layers = ExpertLayers(
        n_layers=n_layers, without_rope=without_rope, chunk_size=chunk_size,
        experts=Experts(n_experts=moe["num_experts"], n_active=moe["top_k"], width=width,
                        shared_width=width),
        with_experts=every(moe["interleave_moe_layer_step"], n_layers),
        chunked=() if chunk_size is None else tuple(
            i for i in range(n_layers) if i not in without_rope),
        has_qk_norm=params.get("use_qk_norm") or False,
        temperature=TemperatureTuning(
            floor=int(floor) if float(floor).is_integer() else floor,
            strength=params.get("attn_scale") or _tuning().strength)
        if params.get("attn_temperature_tuning") else None,
        ffn_dim=family.ffn_dim(params["dim"], multiple_of=params.get("multiple_of") or _MULTIPLE_OF,
                               multiplier=params.get("ffn_dim_multiplier")))
    if not layers.with_experts:
        raise ValueError(f"interleave_moe_layer_step is {moe['interleave_moe_layer_step']}, and "
                         f"with {n_layers} layers none would have experts")
    config = LlamaConfig(
        dim=params["dim"], n_heads=params["n_heads"],
        n_kv_heads=params.get("n_kv_heads") or params["n_heads"], ffn_dim=layers.ffn_dim,
        vocab_size=vocab_size, max_seq_len=params.get("max_seq_len", _SCOUT.max_seq_len),
        norm_eps=params.get("norm_eps", _NORM_EPS),
        rope_theta=params.get("rope_theta", _SCOUT.rope_theta), rope_scaling=_scaling(params),
        is_tied=is_tied, layers=layers.specs())
    if params.get("head_dim") not in (None, config.head_dim):
        raise ValueError(f"head_dim must be dim / n_heads = {config.head_dim}; got "
                         f"{shown(params['head_dim'])}")
    return config


def _moe_args(params: Mapping[str, Any]) -> dict[str, Any]:
    given = params["moe_args"]
    if not isinstance(given, Mapping):
        raise ValueError(f"moe_args must be a JSON object; got {shown(given)}")
    if unknown := [key for key in given if key not in _MOE]:
        raise ValueError(f"{shown(unknown[0])} is not a key of moe_args; "
                         f"{nearest(unknown[0], _MOE)}")
    moe = _MOE | {key: value for key, value in given.items() if value is not None}
    for key in ("num_experts", "top_k", "interleave_moe_layer_step"):
        if type(moe[key]) is not int or not 0 < moe[key] < 2**31:
            raise ValueError(f"{key} of moe_args must be an int above 0; got {shown(moe[key])}")
    if type(moe["auto_scale_F"]) is not bool:
        raise ValueError("auto_scale_F of moe_args must be true or false; got "
                         f"{shown(moe['auto_scale_F'])}")
    factor = moe["capacity_factor"]
    if type(factor) not in (int, float) or not -1 < factor < 2**31:
        raise ValueError("capacity_factor of moe_args must be a number above -1; got "
                         f"{shown(factor)}")
    return moe


def _expert_width(params: Mapping[str, Any], moe: Mapping[str, Any]) -> int:
    """Returns the width of each expert. The products are truncated to an int one after the other.
    """
    exp, multiplier = params.get("ffn_exp") or _FFN_EXP, params.get("ffn_dim_multiplier")
    width = int(2 * int(exp * params["dim"]) / 3)
    if multiplier is not None:
        width = int(multiplier * width)
    if moe["auto_scale_F"]:
        width = int(width / (moe["capacity_factor"] + 1))
    multiple_of = params.get("multiple_of") or _MULTIPLE_OF
    return -(-width // multiple_of) * multiple_of


def _scaling(params: Mapping[str, Any]) -> RopeScaling | None:
    """Returns RoPE's scaling; constants that are not in the file are Scout's."""
    if not params.get("use_scaled_rope"):
        return None
    given = {"factor": params.get("rope_scaling_factor"),
             "high_freq_factor": params.get("rope_high_freq_factor")}
    return dataclasses.replace(
        _SCOUT.rope_scaling, **{key: float(value) for key, value in given.items() if value})


def _tuning() -> TemperatureTuning:
    """Returns the published temperature, whose numbers are the defaults of Meta's code."""
    return next(spec.temperature for spec in _SCOUT.layers if spec.temperature is not None)


def params_of(config: LlamaConfig) -> dict[str, Any]:
    """Returns the content of params.json for the text model of a Llama 4.

    Raises ValueError for a config that it cannot describe.
    """
    layers = expert_layers(config, rule=(
        "params.json of a Llama 4 describes layers that follow a pattern: one in n has experts, "
        "and one in m has no RoPE and no chunks"))
    n_layers, steps = config.n_layers, {}
    for key, places in (("experts", layers.with_experts), ("RoPE", layers.without_rope)):
        steps[key] = step_of(places, n_layers)
        if places and steps[key] is None:
            raise ValueError("params.json has one step for the layers with experts and one for the "
                             f"layers without RoPE; got layers {places} of {n_layers}. Write "
                             "another format")
    with_rope = tuple(i for i in range(n_layers) if i not in layers.without_rope)
    if layers.chunked not in ((), with_rope):
        raise ValueError("in Meta's layout either all layers with RoPE have chunks, or none; got "
                         f"chunks in layers {layers.chunked}, and RoPE in {with_rope}. Write "
                         "another format")
    if config.explicit_head_dim is not None:
        raise ValueError("params.json cannot describe heads that do not share dim equally; got "
                         f"{config.n_heads} heads of {config.head_dim} in dim={config.dim}. Write "
                         "another format")
    tuning, scaling = layers.temperature, config.rope_scaling
    params = {
        "dim": config.dim, "n_layers": n_layers, "n_heads": config.n_heads,
        "n_kv_heads": config.n_kv_heads, "head_dim": config.head_dim,
        "vocab_size": config.vocab_size, **_width_keys(config.dim, layers),
        "norm_eps": config.norm_eps, "attention_chunk_size": layers.chunk_size,
        "rope_theta": config.rope_theta, "use_scaled_rope": scaling is not None,
        "nope_layer_interval": steps["RoPE"], "use_qk_norm": layers.has_qk_norm,
        "attn_temperature_tuning": tuning is not None}
    params["moe_args"] |= {"num_experts": layers.experts.n_experts,
                           "top_k": layers.experts.n_active,
                           "interleave_moe_layer_step": steps["experts"]}
    if scaling is not None:
        params |= {"rope_scaling_factor": scaling.factor,
                   "rope_high_freq_factor": scaling.high_freq_factor}
    if _scaling(params) != scaling:
        raise ValueError("params.json of a Llama 4 cannot describe RoPE scaling with other "
                         f"constants than 1 and 8192; got {scaling}. Write another format")
    if tuning is not None:
        params |= {"floor_scale": float(tuning.floor), "attn_scale": tuning.strength}
    if config.max_seq_len != _SCOUT.max_seq_len:
        params["max_seq_len"] = config.max_seq_len
    return params


def _width_keys(dim: int, layers: ExpertLayers) -> dict[str, Any]:
    """Returns keys with which Meta's rules give both widths: published values if they do.

    Otherwise `capacity_factor` is chosen, which has no other effect on what a model computes. There
    is always a multiplier, because Meta's code for experts needs one.
    """
    width = layers.experts.width
    rules = [*itertools.product(_MULTIPLES, _MULTIPLIERS, (1.0,), (True, False)),
             (1, (layers.ffn_dim + 0.5) / int(2 * (4 * dim) / 3),
              layers.ffn_dim / (width + 0.5) - 1, True)]
    for multiple_of, multiplier, capacity, is_scaled in rules:
        keys = {"multiple_of": multiple_of, "ffn_dim_multiplier": multiplier, "ffn_exp": _FFN_EXP}
        moe = {"capacity_factor": capacity, "auto_scale_F": is_scaled}
        dense = family.ffn_dim(dim, multiple_of=multiple_of, multiplier=multiplier)
        if (dense, _expert_width(keys | {"dim": dim}, moe)) == (layers.ffn_dim, width):
            return keys | {"moe_args": moe}
    raise AssertionError(f"no rule gives the widths {layers.ffn_dim} and {width} for dim={dim}")
