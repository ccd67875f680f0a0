"""The layers of a Llama 4 in the terms of the published formats, and back.

A file says which layers have experts, which have no RoPE and which have chunks, and gives each
size once for all layers. This module turns that into one `LayerSpec` per layer. In the other
direction it refuses layers that these terms cannot describe.

Notebook 23. Llama 4.
"""

from collections.abc import Sequence

from llama_from_scratch.config import (
    Dense,
    Experts,
    LayerSpec,
    LlamaConfig,
    TemperatureTuning,
    record,
)


@record
class ExpertLayers:
    """What the layers of a Llama 4 are, in the terms of its files.

    `with_experts`, `without_rope`, `chunked`: numbers of layers, counted from 0, in order.
    `chunk_size`: None if no layer is chunked. `has_qk_norm`: of all layers with RoPE.
    `temperature`: of all layers without RoPE. `ffn_dim`: the width of dense feed-forwards.
    """

    n_layers: int
    experts: Experts
    with_experts: tuple[int, ...]
    without_rope: tuple[int, ...]
    chunked: tuple[int, ...]
    chunk_size: int | None
    has_qk_norm: bool
    temperature: TemperatureTuning | None
    ffn_dim: int

    def specs(self) -> tuple[LayerSpec, ...]:
        """Returns what each layer is made of. A dense feed-forward is the config's."""
        return tuple(
            LayerSpec(has_rope=i not in self.without_rope,
                      chunk_size=self.chunk_size if i in self.chunked else None,
                      feed_forward=self.experts if i in self.with_experts else None,
                      has_qk_norm=self.has_qk_norm and i not in self.without_rope,
                      temperature=self.temperature if i in self.without_rope else None)
            for i in range(self.n_layers))


def has_experts(config: LlamaConfig) -> bool:
    """Returns whether a layer has experts, which only Llama 4 has of all published models."""
    return any(isinstance(spec.feed_forward, Experts) for spec in config.layers)


def expert_layers(config: LlamaConfig, *, rule: str) -> ExpertLayers:
    """Returns the layers of a config with experts, in the terms of the published formats.

    Raises ValueError if these cannot describe them; the message begins with `rule`.
    """
    if not has_experts(config):
        raise ValueError("in the published formats a model that reads images as tokens is a Llama "
                         "4, with experts; got layers without any. Write our own format")
    specs = dict(enumerate(config.layers))
    kinds = [config.feed_forward(spec) for spec in config.layers]
    chunks = [spec.chunk_size for spec in config.layers if spec.chunk_size is not None]
    tunings = [spec.temperature for spec in config.layers if not spec.has_rope]
    dense = next((kind for kind in kinds if isinstance(kind, Dense)),
                 Dense(width=config.ffn_dim))
    found = ExpertLayers(
        n_layers=config.n_layers,
        experts=next(kind for kind in kinds if isinstance(kind, Experts)),
        with_experts=tuple(i for i in specs if isinstance(kinds[i], Experts)),
        without_rope=tuple(i for i, spec in specs.items() if not spec.has_rope),
        chunked=tuple(i for i, spec in specs.items() if spec.chunk_size is not None),
        chunk_size=chunks[0] if chunks else None,
        has_qk_norm=any(spec.has_qk_norm for spec in config.layers),
        temperature=tunings[0] if tunings else None, ffn_dim=dense.width)
    wanted = [(spec, spec.feed_forward or Dense(width=found.ffn_dim)) for spec in found.specs()]
    odd = [str(spec) for spec, kind, (other, its_kind) in zip(config.layers, kinds, wanted,
                                                              strict=True)
           if kind != its_kind or _without_kind(spec) != _without_kind(other)]
    if odd:
        raise ValueError(f"{rule}; got {sorted(set(odd))}. Write our own format")
    if found.experts.shared_width != found.experts.width:
        raise ValueError("the published formats have one width for routed and shared experts; got "
                         f"{found.experts}. Write our own format")
    if config.has_qkv_bias or config.has_wo_bias or config.rope_linear_factor != 1:
        raise ValueError("a Llama 4 has no biases, and no linear scaling of RoPE; got "
                         f"has_qkv_bias={config.has_qkv_bias}, has_wo_bias={config.has_wo_bias} "
                         f"and rope_linear_factor={config.rope_linear_factor}. Write our own "
                         "format")
    return found


def every(step: int, n_layers: int) -> tuple[int, ...]:
    """Returns each `step`-th layer, counted from 0: every(4, 9) == (3, 7)."""
    return tuple(range(step - 1, n_layers, step))


def step_of(layers: Sequence[int], n_layers: int) -> int | None:
    """Returns the smallest step for which `every` gives these layers, None if there is none."""
    return next((step for step in range(1, n_layers + 1)
                 if every(step, n_layers) == tuple(layers)), None)


def _without_kind(spec: LayerSpec) -> tuple[object, ...]:
    return spec.has_rope, spec.chunk_size, spec.has_qk_norm, spec.temperature
