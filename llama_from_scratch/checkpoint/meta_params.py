"""params.json of Meta's layout <-> our config, including values that are only in Meta's code.

The feed-forward width follows a rule. The context length and the factor of RoPE's scaling depend on
the generation.

Notebook 18. Llama 1 to 3.3, and the text of 3.2 Vision; Llama 4 is in `meta_llama4`. Source:
llama-models, models/llama3/args.py.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_from_scratch import family
from llama_from_scratch.checkpoint import expert_layers, meta_vision
from llama_from_scratch.checkpoint.plain import biases_of, ffn_dim_of, plain_layers
from llama_from_scratch.config import LlamaConfig, RopeScaling, VisionLlamaConfig, nearest
from llama_from_scratch.foreign import shown

# Keys of models that compute something else, if their value is not null, false, 0 or -1.
_LATER = {"quantization_args": "a quantized Llama", "lora_args": "a Llama with adapters"}
_EXPERTS, _VISION = "moe_args", "vision_args"
_OF_LLAMA_4 = (_EXPERTS, _VISION, "nope_layer_interval", "use_qk_norm",
               "attention_chunk_size", "ffn_exp", "attn_temperature_tuning")
"""Keys that only `meta_llama4` reads."""
NEEDED = ("dim", "n_layers", "n_heads")
_READ = (*NEEDED, "n_kv_heads", "multiple_of", "ffn_dim_multiplier", "norm_eps", "vocab_size",
         "rope_theta", "use_scaled_rope", "rope_scaling_factor", "rope_high_freq_factor",
         "head_dim", "max_seq_len")
# Keys about how Meta's programs run a model, and numbers of parts that are switched off.
_IGNORED = ("max_batch_size", "model_parallel_size", "floor_scale", "attn_scale",
            # read by `meta_vision`, and without effect if its other keys switch vision off
            meta_vision.TILE, meta_vision.N_TILES, meta_vision.N_BLOCKS, meta_vision.ENCODER)
_NORM_EPS, _MULTIPLE_OF = 1e-5, 256
"""The defaults of Meta's code for missing keys."""


_LLAMA_3 = family.config("llama-3-8b")


def params_of(config: LlamaConfig) -> dict[str, Any]:
    """Returns the content of params.json for a config. Raises ValueError if there is none.

    For a model that sees, it is what `meta_vision` says about images too.
    """
    if isinstance(config, VisionLlamaConfig):
        return params_of(config.text) | meta_vision.params_of(config)
    ffn_dim = ffn_dim_of(
        config, rule="params.json cannot describe layers without RoPE or with chunks")
    if config.explicit_head_dim is not None or any(biases_of(config).values()):
        biases = ", ".join(name for name, is_there in biases_of(config).items() if is_there)
        raise ValueError("params.json cannot describe heads that do not share dim equally, or "
                         f"biases; got {config.n_heads} heads of {config.head_dim} in "
                         f"dim={config.dim}, and biases of {biases or 'nothing'}. "
                         "Write another format")
    if config.rope_linear_factor != 1:
        raise ValueError("params.json cannot describe linear scaling of RoPE; got "
                         f"rope_linear_factor={config.rope_linear_factor}. Write another format")
    width, multiplier = _width_rule(config.dim, ffn_dim)
    params: dict[str, Any] = {
        "dim": config.dim, "n_layers": config.n_layers, "n_heads": config.n_heads}
    if not is_old(config) or config.n_kv_heads != config.n_heads:
        params["n_kv_heads"] = config.n_kv_heads
    params |= {"multiple_of": width}
    params |= {} if multiplier is None else {"ffn_dim_multiplier": multiplier}
    params |= {"norm_eps": config.norm_eps,
               "vocab_size": -1 if is_old(config) else config.vocab_size}
    if not is_old(config):
        params["rope_theta"] = config.rope_theta
    if config.rope_scaling is not None:
        params["use_scaled_rope"] = True
        if config.rope_scaling.factor != _scaling(params).factor:
            params["rope_scaling_factor"] = config.rope_scaling.factor
    if config.max_seq_len != _max_seq_len(params):
        params["max_seq_len"] = config.max_seq_len
    if _scaling(params) != config.rope_scaling:
        raise ValueError(
            "params.json cannot describe RoPE scaling with constants other than 1, 4 and 8192; "
            f"got {config.rope_scaling}. Write another format")
    return params


def is_old(config: LlamaConfig) -> bool:
    """Returns whether the config has the arithmetic of Llama 1 and 2.

    Their files have fewer keys, and cut the embedding by columns.
    """
    return (config.rope_theta == 1e4 and config.rope_scaling is None
            and not expert_layers.has_experts(config))


def config_from(
    params: Any, *, vocab_size: int, is_tied: bool, where: str | Path = "params.json"
) -> LlamaConfig:
    """Returns our config for the content of params.json.

    `vocab_size`, `is_tied`: only the weights show them. The factor of RoPE's scaling is not in the
    released files: it is 32 for the sizes of Llama 3.2 and 8 for all others. Other missing keys
    have the default of Meta's code. Raises ValueError if a necessary key is missing, if a key is
    unknown or has another type, or if this library does not build this kind of model.
    """
    try:
        config = _config(params, vocab_size=vocab_size, is_tied=is_tied)
    except ValueError as error:
        raise ValueError(f"{where} describes no model of this version: {error}. Correct it, or "
                         "download it again") from error
    return config


def _config(params: Mapping[str, Any], *, vocab_size: int, is_tied: bool) -> LlamaConfig:
    _refuse_unknown(params)
    if missing := [key for key in NEEDED if key not in params]:
        raise ValueError(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    for key in (*NEEDED, "multiple_of"):
        refuse_other_number(params, key, int)
    for key in ("ffn_dim_multiplier", "rope_scaling_factor", "rope_high_freq_factor"):
        if params.get(key) is not None:
            refuse_other_number(params, key, float)
    if not isinstance(params.get("use_scaled_rope", False), bool):
        raise ValueError("use_scaled_rope must be true or false; got "
                         f"{shown(params['use_scaled_rope'])}")
    ffn_dim = family.ffn_dim(params["dim"], multiple_of=params.get("multiple_of", _MULTIPLE_OF),
                             multiplier=params.get("ffn_dim_multiplier"))
    n_kv_heads = params.get("n_kv_heads")
    config = LlamaConfig(
        dim=params["dim"], n_heads=params["n_heads"],
        n_kv_heads=params["n_heads"] if n_kv_heads is None else n_kv_heads,
        vocab_size=vocab_size, max_seq_len=_max_seq_len(params),
        norm_eps=params.get("norm_eps", _NORM_EPS), rope_theta=_theta(params),
        rope_scaling=_scaling(params), is_tied=is_tied,
        **plain_layers(params["n_layers"], ffn_dim=ffn_dim))
    if params.get("head_dim") not in (None, config.head_dim):
        raise ValueError(f"head_dim must be dim / n_heads = {config.head_dim}, as in every Llama "
                         f"up to 3.3; got {shown(params['head_dim'])}")
    return config


def _refuse_unknown(params: Mapping[str, Any]) -> None:
    """Raises ValueError for a key that Meta's code does not have.

    If a misspelled key were ignored, its number would stay at the default, and the model would
    compute something else.
    """
    known = (*_READ, *_IGNORED, *_LATER, *_OF_LLAMA_4)
    if unknown := [key for key in params if key not in known]:
        raise ValueError(f"{shown(unknown[0])} is not a key of params.json; "
                         f"{nearest(unknown[0], _READ)} Remove it only if you are sure that it "
                         "does not change what the model computes")


def refuse_other_number(params: Mapping[str, Any], key: str, kind: type) -> None:
    """Raises ValueError unless a key is missing or is a number above 0, of this type or an int."""
    value = params.get(key, 1)
    accepted = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, accepted) or not 0 < value < 2**31:
        raise ValueError(f"{key} must be {'an int' if kind is int else 'a number'} above 0 and "
                         f"below 2**31; got {shown(value)}")


def _theta(params: Mapping[str, Any]) -> Any:
    """Returns RoPE's theta: from the file, or the default of the code that can read the file.

    Only Llama 3's code has `use_scaled_rope` and vocabularies of this size.
    """
    is_llama_3 = "use_scaled_rope" in params or params.get("vocab_size") == _LLAMA_3.vocab_size
    default = _LLAMA_3.rope_theta if is_llama_3 else 1e4
    return params.get("rope_theta", default)


def text_params(params: Any, *, where: Path) -> dict[str, Any]:
    """Returns the keys of params.json. Some releases have them inside the key "model".

    Raises ValueError for an unknown key or a model that is not built here.
    """
    if isinstance(params, dict) and isinstance(params.get("model"), dict):
        if both := sorted(params.keys() & {*_READ, *_LATER, *_OF_LLAMA_4}):
            raise ValueError("the keys of the model must be either all inside \"model\" or all "
                             f"outside; {where} also has {', '.join(both)} outside. Remove one, or "
                             "download it again")
        params = params["model"]
    if not isinstance(params, dict):
        raise ValueError(f"{where} must hold a JSON object; got {type(params).__name__}. Download "
                         "it again")
    try:
        _refuse_unknown(params)
    except ValueError as error:
        raise ValueError(f"{where} describes no model of this version: {error}") from error
    if later := [f"{key}, as in {of}" for key, of in _LATER.items() if _is_on(params, key)]:
        raise ValueError("only weights that are neither quantized nor adapted can be loaded; "
                         f"{where} has {'; '.join(later)}. Load the model that it was made from")
    if not has_experts(params) and (odd := [key for key in _OF_LLAMA_4 if _is_on(params, key)]):
        raise ValueError(f"only a Llama 4 has the key {odd[0]}, and here a Llama 4 needs experts; "
                         f"{where} has {odd[0]} and no {_EXPERTS}. Load another model")
    if params.get("head_dim") is not None and not _is_share(params["head_dim"], params):
        raise ValueError("heads must share dim equally in the text models of Meta's layout; "
                         f"{where} has head_dim {params['head_dim']!r:.80}. Load another format "
                         "of this model")
    return params


def has_experts(params: Mapping[str, Any]) -> bool:
    """Returns whether params.json describes a model with experts, a Llama 4 (`meta_llama4`)."""
    return _is_on(params, _EXPERTS)


def is_whole(params: Mapping[str, Any]) -> bool:
    """Returns whether params.json describes a Llama 4 with its encoder (`meta_fusion`)."""
    return _is_on(params, _VISION)


def _is_on(params: Mapping[str, Any], key: str) -> bool:
    return params.get(key) not in (None, False, 0, -1)


def _is_share(head_dim: Any, params: Mapping[str, Any]) -> bool:
    dim, n_heads = params.get("dim"), params.get("n_heads")
    return all(type(n) is int for n in (head_dim, dim, n_heads)) and head_dim * n_heads == dim


def _scaling(params: Mapping[str, Any]) -> RopeScaling | None:
    if not params.get("use_scaled_rope"):
        return None
    sizes = [params.get(key) for key in ("dim", "n_layers", "n_heads")]
    published = [release.config for release in family.FAMILY.values()]
    base = next((c.rope_scaling for c in published
                 if c.rope_scaling is not None and [c.dim, c.n_layers, c.n_heads] == sizes),
                family.config("llama-3.1-8b").rope_scaling)
    given = {"factor": params.get("rope_scaling_factor"),
             "high_freq_factor": params.get("rope_high_freq_factor")}
    return dataclasses.replace(base, **{k: v for k, v in given.items() if v is not None})


def _max_seq_len(params: Mapping[str, Any]) -> int:
    """Returns the context length of the file, or of the generation that its other keys show."""
    if "max_seq_len" in params:
        return params["max_seq_len"]
    if params.get("use_scaled_rope"):
        like = "llama-3.1-8b"
    elif "rope_theta" in params or _theta(params) != 1e4:
        like = "llama-3-8b"
    else:
        norm_eps = params.get("norm_eps", _NORM_EPS)
        is_llama_1 = isinstance(norm_eps, (int, float)) and norm_eps < 1e-5
        like = "llama-1-7b" if is_llama_1 else "llama-2-7b"
    return family.config(like).max_seq_len


def _width_rule(dim: int, ffn_dim: int) -> tuple[int, float | None]:
    """Returns a `multiple_of` and a multiplier with which Meta's rule gives the width `ffn_dim`.

    It is a published pair if one fits.
    """
    for multiple_of, multiplier in itertools.product((4096, 1024, 256, 32),
                                                     (None, 1.3, 1.2, 1.5, 1.0)):
        if family.ffn_dim(dim, multiple_of=multiple_of, multiplier=multiplier) == ffn_dim:
            return multiple_of, multiplier
    return 1, (ffn_dim + 0.5) / int(2 * (4 * dim) / 3)
