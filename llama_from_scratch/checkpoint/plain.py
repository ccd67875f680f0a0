"""The layers that every published text format can describe.

They are dense, are all the same, use RoPE, and attend to all earlier tokens. params.json,
config.json, GGUF's facts and llama2.c's header have one number of layers and one feed-forward
width. Only this module turns these two numbers into the layers of a config, and back.

Notebook 18.
"""

from typing import Any

from llama_from_scratch.config import Dense, LayerSpec, LlamaConfig

LAYER_FIELDS = ("ffn_dim", "has_ffn_bias", "layers")
"""The fields of a `LlamaConfig` that describe its layers."""


def plain_layers(n_layers: int, *, ffn_dim: Any, has_ffn_bias: Any = False) -> dict[str, Any]:
    """Returns the fields of a `LlamaConfig` for `n_layers` plain layers.

    It does not check `ffn_dim` and `has_ffn_bias`, because the config does.
    """
    return {"layers": (LayerSpec(),) * n_layers, "ffn_dim": ffn_dim, "has_ffn_bias": has_ffn_bias}


def ffn_dim_of(config: LlamaConfig, *, rule: str) -> int:
    """Returns the feed-forward width of all layers.

    Raises ValueError unless they are plain and all the same; the message begins with `rule`.
    """
    if odd_layers(config):
        raise ValueError(f"{rule}; got {sorted({str(spec) for spec in config.layers})}. "
                         "Write another format")
    return config.feed_forward(config.layers[0]).width


def biases_of(config: LlamaConfig) -> dict[str, bool]:
    """Returns which matrices of a config with plain layers add a bias.

    "qkv": the three before attention. "wo": the one after it. "ffn": the three of the feed-forward.
    """
    return {"qkv": config.has_qkv_bias, "wo": config.has_wo_bias,
            "ffn": config.feed_forward(config.layers[0]).has_bias}


def odd_layers(config: LlamaConfig) -> list[str]:
    """Returns the kinds of layers, as texts, that are not plain or differ from the first layer.

    The list is empty if every format can describe the config.
    """
    first = config.feed_forward(config.layers[0])
    return sorted({str(spec) for spec in config.layers
                   if spec != LayerSpec(feed_forward=spec.feed_forward)
                   or not isinstance(first, Dense) or config.feed_forward(spec) != first})


def ffn_dims(config: LlamaConfig) -> tuple[int, ...]:
    """Returns the feed-forward widths of any config's dense layers, each once, in order."""
    kinds = [config.feed_forward(spec) for spec in config.layers]
    return tuple(dict.fromkeys(kind.width for kind in kinds if isinstance(kind, Dense)))
