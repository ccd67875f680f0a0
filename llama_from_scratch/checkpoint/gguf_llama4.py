"""The facts of a GGUF file about the layers of a Llama 4 <-> our layers.

A file says how many experts there are, how wide, and in which layers. Everything else about the
layers is in llama.cpp's code: chunks of 8192 tokens, every fourth layer without RoPE, one
temperature, and a norm of queries and keys unless there are 128 experts, as in Maverick. A model
with other layers is refused, because llama.cpp would compute something else.

Notebook 23. Source: llama.cpp, src/models/llama4.cpp and conversion/llama4.py.
"""

from collections.abc import Mapping
from typing import Any

from llama_from_scratch.checkpoint.expert_layers import (
    ExpertLayers,
    every,
    expert_layers,
    step_of,
)
from llama_from_scratch.config import Experts, LlamaConfig, TemperatureTuning

ARCHITECTURE = "llama4"
_N_EXPERTS, _N_ACTIVE, _WIDTH, _STEP = (
    "expert_count", "expert_used_count", "expert_feed_forward_length",
    "interleave_moe_layer_step")
NEEDED = (_N_EXPERTS, _N_ACTIVE, _WIDTH, _STEP)
MUST_BE = {
    "expert_shared_count": (0, 1), "leading_dense_block_count": (0,), "expert_gating_func": (2,),
    "expert_weights_norm": (False,), "expert_weights_scale": (1.0, 0.0),
    "attention.sliding_window": (8192,), "attention.sliding_window_pattern": (4,),
    "attention.temperature_length": (8192,)}
"""Facts that a file may have in addition, and the only values that llama.cpp's Llama 4 has."""
_CHUNK, _PERIOD = 8192, 4
_TUNING = TemperatureTuning(floor=8192, strength=0.1)
_N_WITHOUT_NORM = 128
"""The number of experts by which llama.cpp recognizes Maverick."""


def layers_from(about: Mapping[str, Any], n_layers: int, *, ffn_dim: int) -> ExpertLayers:
    """Returns the layers for the facts of a file, without their prefix. Raises ValueError for
    impossible values.
    """
    step, width = about[_STEP], about[_WIDTH]
    if type(step) is not int or not 0 < step <= n_layers:
        raise ValueError(f"{_STEP} must be from 1 to the number of layers, {n_layers}; got "
                         f"{step!r:.80}")
    without_rope = every(_PERIOD, n_layers)
    return ExpertLayers(
        n_layers=n_layers, with_experts=every(step, n_layers), without_rope=without_rope,
        experts=Experts(n_experts=about[_N_EXPERTS], n_active=about[_N_ACTIVE], width=width,
                        shared_width=width),
        chunked=tuple(i for i in range(n_layers) if i not in without_rope), chunk_size=_CHUNK,
        has_qk_norm=about[_N_EXPERTS] != _N_WITHOUT_NORM, temperature=_TUNING, ffn_dim=ffn_dim)


def layers_to(config: LlamaConfig) -> tuple[dict[str, int], int]:
    """Returns the facts about the layers without their prefix, and the width of dense ones.

    Raises ValueError for layers that llama.cpp does not have.
    """
    layers = expert_layers(config, rule=(
        "in GGUF the layers of a Llama 4 are the published ones, because llama.cpp's code fixes "
        "them"))
    experts, step = layers.experts, step_of(layers.with_experts, config.n_layers)
    facts = {_N_EXPERTS: experts.n_experts, _N_ACTIVE: experts.n_active, _WIDTH: experts.width,
             _STEP: step}
    if step is None or (
            layers_from(facts, config.n_layers, ffn_dim=layers.ffn_dim).specs() != layers.specs()):
        raise ValueError("llama.cpp fixes the layers of a Llama 4: experts in each n-th layer, "
                         f"every fourth without RoPE, chunks of {_CHUNK} in the others, and their "
                         f"queries and keys normed unless there are {_N_WITHOUT_NORM} experts; got "
                         f"{sorted({str(spec) for spec in config.layers})}. Write another format")
    return facts, layers.ffn_dim
