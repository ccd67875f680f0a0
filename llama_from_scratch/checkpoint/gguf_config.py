"""The facts of a GGUF file <-> our config.

In GGUF the numbers of the config are fp32. The constants of RoPE's scaling are not stored. Instead
the file has the divisors of the frequencies. The constants are computed from the divisors, or the
file is refused.

Notebook 18. Llama 1 to 3.3, and Llama 4 with the layers of `gguf_llama4`. Sources: gguf-py,
constants.py; llama.cpp, convert_hf_to_gguf.py.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from llama_from_scratch.checkpoint import gguf_file, gguf_llama4, safetensors_file
from llama_from_scratch.checkpoint.expert_layers import has_experts
from llama_from_scratch.checkpoint.gguf_file import PackedEntry
from llama_from_scratch.checkpoint.names import GGUF, TABLE
from llama_from_scratch.checkpoint.plain import ffn_dim_of, plain_layers
from llama_from_scratch.config import (
    FusionLlamaConfig,
    LlamaConfig,
    RopeScaling,
    VisionLlamaConfig,
)
from llama_from_scratch.model.rope import rope_frequencies

_ARCHITECTURE = "llama"
DIVISORS = "rope_freqs.weight"
_EMBEDDING, _HEAD = (TABLE.name_of(role, GGUF) for role in ("embedding", "head"))
_BIASES = {"has_qkv_bias": "blk.0.attn_q.bias", "has_wo_bias": "blk.0.attn_output.bias",
           "has_ffn_bias": "blk.0.ffn_gate.bias"}
"""No fact says whether there are biases; the first layer shows it, and the others must agree."""
_HEAD_WIDTHS = ("attention.key_length", "attention.value_length", "rope.dimension_count")
_SAME_DIVISOR = 1e-5
"""The largest relative difference of two divisors from the same scaling, if their fp32 operations
have another order.
"""

_SIZES = {"embedding_length": "dim", "attention.head_count": "n_heads",
          "context_length": "max_seq_len"}
_WIDTH, _N_LAYERS = "feed_forward_length", "block_count"
_NEEDED = (*_SIZES, _WIDTH, _N_LAYERS, "attention.layer_norm_rms_epsilon")
_READ = {*_NEEDED, "attention.head_count_kv", "rope.freq_base", "vocab_size"}
_PER_LAYER = ("attention.head_count", "attention.head_count_kv", _WIDTH)
_FLOATS = ("attention.layer_norm_rms_epsilon", "rope.freq_base")
# What a plain Llama computes. Another value is another model.
_MUST_BE = {"expert_count": (0,), "expert_used_count": (0,), "expert_shared_count": (0,),
            "attention.causal": (True,), "attention.sliding_window": (0,),
            "attention.clamp_kqv": (0.0,), "pooling_type": (0,), "use_parallel_residual": (False,),
            "logit_scale": (1.0, 0.0), "embedding_scale": (1.0, 0.0), "residual_scale": (1.0, 0.0),
            "rope.scaling.attn_factor": (1.0,),
            "tensor_data_layout": ("reference", "Meta AI original pth")}
# The kind of scaling is "linear" if a file names no kind, and a factor of 0 means no scaling.
_KIND, _FACTORS = "rope.scaling.type", ("rope.scaling.factor", "rope.scale_linear")
# llama.cpp uses these only with other kinds of scaling, which are refused.
_OF_OTHER_SCALINGS = ("rope.scaling.original_context_length", "rope.scaling.finetuned",
                      "rope.scaling.alpha", "rope.scaling.yarn_log_multiplier",
                      "rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor",
                      "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow")


NO_VISION = ("neither llama.cpp nor its library for images, mtmd, can run Llama 3.2 Vision, so "
             "GGUF has no names for its cross-attention")


def config_to(config: LlamaConfig) -> dict[str, tuple[str, Any]]:
    """Returns the facts that describe a config, without the scaling of RoPE.

    Raises ValueError for a config that facts cannot describe, such as of a model that sees.
    """
    if isinstance(config, VisionLlamaConfig):
        raise ValueError(f"{NO_VISION}. Write another format, or the text model alone: "
                         "vision.detach(model)")
    if isinstance(config, FusionLlamaConfig):
        raise ValueError("llama.cpp keeps the encoder of a model in a file of its own, which is "
                         "not written here; got a model that sees. Write another format, or the "
                         "text model alone: vision.detach(model)")
    if has_experts(config):
        of_layers, ffn_dim = gguf_llama4.layers_to(config)
    else:
        of_layers, ffn_dim = {}, ffn_dim_of(
            config, rule="all layers of a Llama in GGUF must use RoPE and attend to all earlier "
                         "tokens")
    for name in ("norm_eps", "rope_theta", "rope_linear_factor"):
        if _shortest(value := getattr(config, name)) != value:
            raise ValueError(f"GGUF stores numbers in fp32; got {name}={value!r}, which would be "
                             f"read as {_shortest(value)!r}. Choose that, or write another format")
    if (config.rope_scaling is not None
        and (back := scaling_of(divisors_of(config), config)) != config.rope_scaling):
        raise ValueError("GGUF stores only the divisors of RoPE's scaling; got "
                         f"{config.rope_scaling}, which would be read as {back}. Write another "
                         "format")
    facts = {"embedding_length": config.dim, "attention.head_count": config.n_heads,
             "feed_forward_length": ffn_dim,
             "context_length": config.max_seq_len, "block_count": config.n_layers, **of_layers}
    facts = {key: ("u32", value) for key, value in facts.items()}
    facts |= {"attention.head_count_kv": ("u32", config.n_kv_heads),
              "attention.layer_norm_rms_epsilon": ("f32", config.norm_eps),
              "rope.freq_base": ("f32", config.rope_theta),
              "rope.dimension_count": ("u32", config.head_dim),
              "vocab_size": ("u32", config.vocab_size)}
    if config.rope_linear_factor != 1:
        facts |= {"rope.scaling.type": ("str", "linear"),
                  "rope.scaling.factor": ("f32", config.rope_linear_factor)}
    if config.explicit_head_dim is not None:
        facts |= dict.fromkeys(_HEAD_WIDTHS, ("u32", config.head_dim))
    return {f"{architecture_of(config)}.{key}": fact for key, fact in facts.items()}


def architecture_of(config: LlamaConfig) -> str:
    """Returns the name of the config's architecture in GGUF, with which its facts begin."""
    return gguf_llama4.ARCHITECTURE if has_experts(config) else _ARCHITECTURE


def divisors_of(config: LlamaConfig) -> Float32[Tensor, "R"]:
    """Returns how many times slower each pair turns because of RoPE's scaling."""
    freq_R = rope_frequencies(config.head_dim, theta=config.rope_theta)
    return (freq_R / rope_frequencies(config.head_dim, theta=config.rope_theta,
                                      scaling=config.rope_scaling))


def scaling_of(divisor_R: Float32[Tensor, "R"], config: LlamaConfig) -> RopeScaling | None:
    """Returns the scaling of RoPE that has these divisors, None if all are 1.

    It tries the published constants first, then others, with contexts that are powers of two. In
    Llama 4 the published scaling blends nothing, so its two limits are equal. The factor is the
    divisor of the slowest pair. Raises ValueError if no scaling has these divisors.
    """
    def turns_alike(scaling: RopeScaling | None) -> bool:
        freq_R = rope_frequencies(config.head_dim, theta=config.rope_theta)
        other_R = (
            freq_R / rope_frequencies(config.head_dim, theta=config.rope_theta, scaling=scaling))
        return torch.allclose(other_R, divisor_R, rtol=_SAME_DIVISOR, atol=0)

    if turns_alike(None):
        return None
    factor = _shortest(divisor_R[-1].item())
    if factor > 0 and math.isfinite(factor):
        for original in (8192, *(1 << n for n in range(6, 21))):
            for high in (1.0, 4.0, 2.0, 8.0) if has_experts(config) else (4.0, 1.0, 2.0, 8.0):
                scaling = RopeScaling(factor=factor, low_freq_factor=1.0, high_freq_factor=high,
                                      original_max_seq_len=original)
                if turns_alike(scaling):
                    return scaling
    raise ValueError(f"{DIVISORS} must be the divisors of a scaling as in Llama 3.1; got "
                     f"{[round(x, 4) for x in divisor_R.tolist()]}, which no such scaling has. "
                     "Load a Llama, or another format of it")


def config_from(
    facts: Mapping[str, Any], tensors: Mapping[str, PackedEntry], divisors: PackedEntry | None, *,
    where: Path
) -> LlamaConfig:
    """Returns our config for the facts of a file, its tensors and the divisors of the frequencies.

    Raises ValueError naming each fact that is missing, unknown, or requires other arithmetic.
    """
    _refuse_other_models(facts, where=where)
    architecture = facts["general.architecture"]
    of_experts = architecture == gguf_llama4.ARCHITECTURE
    about = {name.removeprefix(f"{architecture}."): value for name, value in facts.items()
             if name.startswith(f"{architecture}.")}
    needed = (*_NEEDED, *gguf_llama4.NEEDED) if of_experts else _NEEDED
    must_be = {key: allowed for key, allowed in (
        _MUST_BE | (gguf_llama4.MUST_BE if of_experts else {})).items() if key not in needed}
    problems = [f"{key} is missing" for key in needed if key not in about]
    problems += [f"{key} is {about[key]!r:.80}, and only {allowed[0]!r} can be computed"
                 for key, allowed in must_be.items() if key in about
                 and not _is_among(about[key], allowed)]
    problems += _scaling_problems(about)
    known = {*_READ, *needed, *must_be, *_HEAD_WIDTHS, _KIND, *_FACTORS, *_OF_OTHER_SCALINGS}
    problems += [f"{key!r:.80} is not a key that is known" for key in about if key not in known]
    n_layers = about.get("block_count")
    if type(n_layers) is not int or n_layers > len(tensors):
        problems.append(f"block_count is {n_layers!r:.80}, and the file holds {len(tensors)} "
                        "tensors in all")
    embedding = tensors.get(_EMBEDDING)
    if embedding is None or len(embedding.shape) != 2:
        problems.append(f"it has no matrix called {_EMBEDDING}")
    about |= {key: _of_all_layers(about[key], n_layers) for key in _PER_LAYER if key in about}
    problems += [f"{key} is {about[key]!r:.80}, and a number is needed" for key in _FLOATS
                 if key in about and type(about[key]) not in (int, float)]
    if problems:
        raise ValueError(f"{where} describes no model of this version: {'; '.join(problems[:8])}. "
                         "Load another model, or another conversion of this one")
    try:
        n_heads = about["attention.head_count"]
        biases = {name: tensor in tensors for name, tensor in _BIASES.items()}
        config = LlamaConfig(
            **{ours: about[theirs] for theirs, ours in _SIZES.items()},
            **biases | _layers(about, n_layers, of_experts=of_experts,
                               has_ffn_bias=biases["has_ffn_bias"]),
            explicit_head_dim=about.get(_HEAD_WIDTHS[0]),
            vocab_size=embedding.shape[0], n_kv_heads=about.get("attention.head_count_kv", n_heads),
            norm_eps=_shortest(about["attention.layer_norm_rms_epsilon"]),
            rope_theta=_shortest(about.get("rope.freq_base", 1e4)),
            rope_linear_factor=_linear_factor(about), is_tied=_HEAD not in tensors)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} describes no model of this version: {error}. Load another "
                         "model, or download it again") from error
    expected = dict.fromkeys(_HEAD_WIDTHS, config.head_dim) | {"vocab_size": config.vocab_size}
    wrong = [f"{key} is {about[key]!r:.80}, not {n}" for key, n in expected.items()
             if key in about and not _is_among(about[key], (n,))]
    if (divisors is not None
        and (divisors.kind.name, divisors.shape) != ("F32", (config.head_dim // 2,))):
        wrong.append(f"{DIVISORS} is {divisors.shape} in {divisors.kind.name}, not "
                     f"{(config.head_dim // 2,)} in F32")
    if wrong:
        raise ValueError(f"the facts in {where} must fit its tensors; {'; '.join(wrong)}. Download "
                         "it again")
    if divisors is None:
        return config
    values = gguf_file.read_tensor(divisors, safetensors_file.mapped(divisors.file)).clone()
    try:
        scaling = scaling_of(values, config)
    except ValueError as error:
        raise ValueError(f"{where} describes no model of this version: {error}") from error
    return dataclasses.replace(config, rope_scaling=scaling)


def _layers(
    about: Mapping[str, Any], n_layers: int, *, of_experts: bool, has_ffn_bias: bool
) -> dict[str, Any]:
    """Returns the fields of a config that describe its layers."""
    if not of_experts:
        return plain_layers(n_layers, ffn_dim=about[_WIDTH], has_ffn_bias=has_ffn_bias)
    found = gguf_llama4.layers_from(about, n_layers, ffn_dim=about[_WIDTH])
    return {"layers": found.specs(), "ffn_dim": found.ffn_dim}


def _refuse_other_models(facts: Mapping[str, Any], *, where: Path) -> None:
    """Raises ValueError unless a file holds a whole model of our architecture."""
    kind, architecture = facts.get("general.type", "model"), facts.get("general.architecture")
    if not _is_among(kind, ("model",)):
        raise ValueError(f"a checkpoint must be a whole model; general.type in {where} is "
                         f"{kind!r:.80}, only a part for a model. Give the file of the model")
    if _is_among(architecture, ("mllama",)):
        raise ValueError(f"{NO_VISION}; {where} was written by another program, with names of its "
                         "own. Load Hugging Face's or Meta's layout of this model")
    if not _is_among(architecture, (_ARCHITECTURE, gguf_llama4.ARCHITECTURE)):
        raise ValueError(f"general.architecture must be \"llama\" or \"llama4\"; {where} has "
                         f"{architecture!r:.80}. Only Llamas can be loaded")


def _scaling_problems(about: Mapping[str, Any]) -> list[str]:
    """Returns the problems with a file's RoPE scaling, if it cannot be computed here."""
    kind = about.get(_KIND, "linear")
    if not _is_among(kind, ("linear", "none")):
        return [f"{_KIND} is {kind!r:.80}, and RoPE can be scaled only linearly, or as in Llama "
                f"3.1 by the tensor {DIVISORS}"]
    return [f"{key} is {about[key]!r:.80}, and a number is needed" for key in _FACTORS
            if key in about and type(about[key]) not in (int, float)]


def _of_all_layers(value: Any, n_layers: Any) -> Any:
    """Returns the number in a list of equal numbers for all layers, and other values unchanged."""
    is_list = isinstance(value, np.ndarray) and len(value) == n_layers
    return value[0].item() if is_list and (value == value[0]).all() else value


def _linear_factor(about: Mapping[str, Any]) -> float:
    """Returns how many times slower all pairs turn.

    As in llama.cpp, a factor counts unless it is 0. It also counts if the file has no kind of
    scaling, but not if the kind is "none".
    """
    factors = [about[key] for key in _FACTORS if key in about]
    if not factors or factors[0] == 0 or about.get(_KIND) == "none":
        return 1.0
    return _shortest(factors[0])


def _shortest(value: Any) -> float:
    """Returns the shortest number that is the same in fp32: 1e-5, not 0.0000099999997."""
    return float(str(np.float32(value)))


def _is_among(value: Any, allowed: tuple) -> bool:
    return not isinstance(value, np.ndarray) and value in allowed
