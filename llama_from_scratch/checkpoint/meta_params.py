"""params.json of Meta's layout <-> our config, with what the file leaves out and Meta's code knows.

The feed-forward width follows a rule; the context and the factor of RoPE's scaling go with the
generation.

Notebook 18. Llama 1 to 3.3. Source: llama-models, models/llama3/args.py.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_from_scratch import family
from llama_from_scratch.checkpoint.plain import biases_of, ffn_dim_of, plain_layers
from llama_from_scratch.config import LlamaConfig, RopeScaling

# Keys of models that compute something else; other unknown keys are about running, such as a batch
# size.
_LATER = {
    "vision_chunk_size": "Llama 3.2 Vision",
    "vision_num_cross_attention_layers": "Llama 3.2 Vision",
    "moe_args": "Llama 4", "vision_args": "Llama 4", "nope_layer_interval": "Llama 4",
    "use_qk_norm": "Llama 4", "attention_chunk_size": "Llama 4",
    "quantization_args": "a quantized Llama", "lora_args": "a Llama with adapters",
}


def params_of(config: LlamaConfig) -> dict[str, Any]:
    """The content of params.json for a config. Raises ValueError if it has no words for it."""
    ffn_dim = ffn_dim_of(
        config, rule="params.json has no words for layers without RoPE or with chunks")
    if config.explicit_head_dim is not None or any(biases_of(config).values()):
        biases = ", ".join(name for name, is_there in biases_of(config).items() if is_there)
        raise ValueError("params.json has no words for heads that do not share dim equally, nor "
                         f"for biases; got {config.n_heads} heads of {config.head_dim} in "
                         f"dim={config.dim}, and biases of {biases or 'nothing'}. "
                         "Write another format")
    if config.rope_linear_factor != 1:
        raise ValueError("params.json has no words for a RoPE that turns all pairs slower; got "
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
            "params.json has no words for RoPE scaling with other constants than 1, 4 and 8192; "
            f"got {config.rope_scaling}. Write another format")
    return params


def is_old(config: LlamaConfig) -> bool:
    """Does the config compute as Llama 1 and 2?

    Their files say less, and cut the embedding by columns.
    """
    return config.rope_theta == 1e4 and config.rope_scaling is None


def config_from(
    params: Any, *, vocab_size: int, is_tied: bool, where: str | Path = "params.json"
) -> LlamaConfig:
    """Our config from the content of params.json and what only the weights tell.

    The factor of RoPE's scaling is not in the released files: 32 for the sizes of Llama 3.2, 8 for
    all others. Raises ValueError if a key is missing, or if the model is of a kind that is not
    built here.
    """
    try:
        ffn_dim = family.ffn_dim(params["dim"], multiple_of=params["multiple_of"],
                                 multiplier=params.get("ffn_dim_multiplier"))
        n_kv_heads = params.get("n_kv_heads")
        return LlamaConfig(
            dim=params["dim"], n_heads=params["n_heads"],
            n_kv_heads=params["n_heads"] if n_kv_heads is None else n_kv_heads,
            vocab_size=vocab_size, max_seq_len=_max_seq_len(params), norm_eps=params["norm_eps"],
            rope_theta=params.get("rope_theta", 1e4), rope_scaling=_scaling(params),
            is_tied=is_tied, **plain_layers(params["n_layers"], ffn_dim=ffn_dim))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{where} describes no model of this version: {error}") from error


def text_params(params: Any, *, where: Path) -> dict[str, Any]:
    """The keys of params.json, which some releases nest.

    Raises ValueError for a model that is not built here.
    """
    if isinstance(params, dict) and isinstance(params.get("model"), dict):
        params = params["model"]
    if not isinstance(params, dict):
        raise ValueError(f"{where} must hold a JSON object; got {type(params).__name__}. Download "
                         "it again")
    if later := [f"{key}, as in {of}" for key, of in _LATER.items() if params.get(key)]:
        raise ValueError(f"{where} has {'; '.join(later)}, which is not built yet; this version "
                         "has the text models Llama 1 to 3.3. Load one of those")
    if params.get("head_dim") is not None and not _is_share(params["head_dim"], params):
        raise ValueError("heads share dim equally in the text models of Meta's layout; "
                         f"{where} says head_dim {params['head_dim']!r:.80}. Load another format "
                         "of this model")
    return params


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
    factor = params.get("rope_scaling_factor")
    return base if factor is None else dataclasses.replace(base, factor=factor)


def _max_seq_len(params: Mapping[str, Any]) -> int:
    """The context of the generation that the other keys show."""
    if "max_seq_len" in params:
        return params["max_seq_len"]
    if params.get("use_scaled_rope"):
        like = "llama-3.1-8b"
    elif "rope_theta" in params:
        like = "llama-3-8b"
    else:
        like = "llama-1-7b" if params["norm_eps"] < 1e-5 else "llama-2-7b"
    return family.config(like).max_seq_len


def _width_rule(dim: int, ffn_dim: int) -> tuple[int, float | None]:
    """A `multiple_of` and a multiplier whose rule gives the feed-forward width.

    A published pair where one fits.
    """
    for multiple_of, multiplier in itertools.product((4096, 1024, 256, 32),
                                                     (None, 1.3, 1.2, 1.5, 1.0)):
        if family.ffn_dim(dim, multiple_of=multiple_of, multiplier=multiplier) == ffn_dim:
            return multiple_of, multiplier
    return 1, (ffn_dim + 0.5) / int(2 * (4 * dim) / 3)
