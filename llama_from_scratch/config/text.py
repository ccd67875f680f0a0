"""What a text model is, as data: the sizes that all its layers share, and a spec for each layer.

The model reads nothing else, so a generation is a row of data (see `family.py`) and never an `if`
in `forward`. Names are those in Meta's params.json (dim, n_heads, n_kv_heads, rope_theta, norm_eps,
vocab_size). `n_layers` came with Llama 1, `n_kv_heads` with Llama 2, `rope_scaling` with 3.1.

Notebook 15.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from llama_from_scratch.config.layers import Dense, FeedForwardSpec, LayerSpec, RopeScaling
from llama_from_scratch.config.record import (
    check_claims,
    check_number,
    json_object,
    record,
    short,
    without_defaults,
)


@record
class LlamaConfig:
    """Everything that decides the shape and the arithmetic of one text model.

    `max_seq_len`: the longest context that the model was made for, in tokens. `ffn_dim`: the width
    of the feed-forward in each layer whose spec names no feed-forward. `is_tied`: the output head
    is the embedding matrix itself (Llama 3.2 1B and 3B).

    The last five fields are for relatives of Llama; no published Llama uses them.
    `explicit_head_dim`: the width of a head where it is not dim / n_heads. `has_qkv_bias`: the
    three matrices before attention add a bias. `has_wo_bias`: the matrix after attention adds one.
    `has_ffn_bias`: the feed-forward adds biases in each layer whose spec names no feed-forward.
    `rope_linear_factor`: how many times slower RoPE turns every pair, so that the positions of a
    longer context fall between the positions of the first training (Chen et al.,
    arXiv:2306.15595).
    """

    dim: int
    n_heads: int
    n_kv_heads: int
    ffn_dim: int
    vocab_size: int
    max_seq_len: int
    norm_eps: float
    rope_theta: float
    layers: tuple[LayerSpec, ...]
    rope_scaling: RopeScaling | None = None
    is_tied: bool = False
    explicit_head_dim: int | None = None
    has_qkv_bias: bool = False
    has_wo_bias: bool = False
    has_ffn_bias: bool = False
    rope_linear_factor: float = 1.0

    def __post_init__(self) -> None:
        for name in ("dim", "n_heads", "n_kv_heads", "ffn_dim", "vocab_size", "max_seq_len"):
            check_number(self, name, int)
        check_number(self, "norm_eps", float, below=1.0)
        check_number(self, "rope_theta", float)
        check_number(self, "rope_linear_factor", float)
        check_claims(self, "is_tied", "has_qkv_bias", "has_wo_bias", "has_ffn_bias")
        if self.rope_scaling is not None and not isinstance(self.rope_scaling, RopeScaling):
            raise ValueError("LlamaConfig.rope_scaling must be a RopeScaling or None; "
                             f"got {short(self.rope_scaling)}")
        if (not isinstance(self.layers, tuple) or not self.layers
                or not all(isinstance(spec, LayerSpec) for spec in self.layers)):
            raise ValueError("LlamaConfig.layers must be a tuple with one LayerSpec per layer, "
                             f"such as (LayerSpec(),) * 4; got {self.layers!r}")
        self._settle_head_dim()
        if self.n_heads % self.n_kv_heads:
            raise ValueError("each key/value head serves the same number of query heads, "
                             "so n_kv_heads must divide n_heads; "
                             f"got n_heads={self.n_heads}, n_kv_heads={self.n_kv_heads}")

    def _settle_head_dim(self) -> None:
        """Checks the width of a head. An `explicit_head_dim` equal to dim / n_heads becomes None.

        This way each model has only one config, and configs are equal when their models are.
        """
        if self.explicit_head_dim is None:
            if self.dim % self.n_heads:
                raise ValueError("the heads share dim equally unless explicit_head_dim says "
                                 "otherwise, so n_heads must divide it; "
                                 f"got dim={self.dim}, n_heads={self.n_heads}")
            if self.head_dim % 2:
                raise ValueError("RoPE turns pairs of channels, so dim / n_heads must be even; "
                                 f"got {self.dim} / {self.n_heads} = {self.head_dim}")
            return
        check_number(self, "explicit_head_dim", int)
        if self.head_dim % 2:
            raise ValueError("RoPE turns pairs of channels, so explicit_head_dim must be even; "
                             f"got {self.head_dim}")
        if self.head_dim * self.n_heads == self.dim:
            object.__setattr__(self, "explicit_head_dim", None)

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def n_ids(self) -> int:
        """How many ids the model can read: its vocabulary, for which it also has logits."""
        return self.vocab_size

    def new_model(self) -> Any:
        """Returns the `Llama` of this config, with fresh weights."""
        return _transformer().Llama(self)

    @property
    def head_dim(self) -> int:
        """K, the width of a head: explicit, or an equal share of dim."""
        return self.explicit_head_dim or self.dim // self.n_heads

    def feed_forward(self, spec: LayerSpec) -> FeedForwardSpec:
        """Returns the feed-forward that the spec names, or a dense one of width `ffn_dim`."""
        if spec.feed_forward is not None:
            return spec.feed_forward
        return Dense(width=self.ffn_dim, has_bias=self.has_ffn_bias)

    @property
    def param_counts(self) -> dict[str, int]:
        """The number of parameters by place; the values sum to `n_params`. See `model.costs`."""
        return dict(_costs().param_counts(self))

    @property
    def n_params(self) -> int:
        return sum(self.param_counts.values())

    @property
    def n_active_params(self) -> int:
        """The parameters that take part in the computation of one token, of which a mixture of
        experts uses only some. See `model.costs.active_params`.
        """
        return _costs().active_params(self)

    def flops_per_token(self, context: int) -> int:
        """Returns the operations for one decoded token that sees `context` tokens.

        A multiply-add counts as two operations; see `model.costs.flops_per_token`. Training costs
        three times as much: one forward pass, and a backward pass that costs two.
        """
        return _costs().flops_per_token(self, context=context)

    def kv_bytes_per_token(self, bytes_per_value: int) -> int:
        """Returns how many bytes the KV cache grows by per token, summed over the layers."""
        return _costs().kv_values_per_token(self) * bytes_per_value

    def to_dict(self) -> dict[str, Any]:
        """Returns the config as plain dicts, lists and numbers, ready for JSON.

        Raises ValueError for a layer that a config file cannot describe.
        """
        plain = without_defaults(dataclasses.asdict(self), _OF_RELATIVES, LlamaConfig)
        return plain | {"layers": [spec.to_dict() for spec in self.layers]}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "LlamaConfig":
        """Returns the config that `to_dict` wrote. Raises ValueError for other or missing keys."""
        values = dict(plain)
        if isinstance(values.get("layers"), list):
            values["layers"] = tuple(LayerSpec.from_dict(json_object(spec, "LayerSpec"))
                                     for spec in values["layers"])
        if values.get("rope_scaling") is not None:
            scaling = json_object(values["rope_scaling"], "LlamaConfig.rope_scaling")
            values["rope_scaling"] = RopeScaling(**scaling)
        if not isinstance(values.get("is_tied", False), bool):
            raise ValueError("LlamaConfig.is_tied must be True or False; "
                             f"got {short(values['is_tied'])}")
        return cls(**values)


_OF_RELATIVES = ("explicit_head_dim", "has_qkv_bias", "has_wo_bias", "has_ffn_bias",
                 "rope_linear_factor")
"""Fields that no published Llama uses."""


def _transformer():
    """Returns `model.transformer`, imported late because it is built on this module."""
    from llama_from_scratch.model import transformer

    return transformer


def _costs():
    """Returns `model.costs`, imported late because it builds the model that a config describes."""
    from llama_from_scratch.model import costs

    return costs
