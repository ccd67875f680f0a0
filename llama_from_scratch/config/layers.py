"""What one layer of a text model is made of, as data.

Notebook 15.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from llama_from_scratch.config.record import (
    check_claims,
    check_number,
    json_object,
    nearest,
    record,
    short,
    without_defaults,
)


@record
class RopeScaling:
    """How Llama 3.1 and later stretch RoPE past the context they were first trained on.

    `factor`: how many times longer the context becomes. Rotations with a wavelength under
    `original_max_seq_len / high_freq_factor` positions stay unchanged. Rotations with a wavelength
    over `original_max_seq_len / low_freq_factor` turn `factor` times slower. The rotations in
    between are blended.
    Source: The Llama 3 Herd of Models, arXiv:2407.21783, and the reference code released with it.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_seq_len: int

    def __post_init__(self) -> None:
        for name in ("factor", "low_freq_factor", "high_freq_factor"):
            check_number(self, name, float)
        check_number(self, "original_max_seq_len", int)
        if self.low_freq_factor > self.high_freq_factor:
            raise ValueError("RopeScaling needs low_freq_factor <= high_freq_factor; "
                             f"got {self.low_freq_factor} and {self.high_freq_factor}")


class FeedForwardSpec:
    """What kind of feed-forward a layer has, and its sizes. `model.feed_forward.build` makes it.

    Each kind is a record derived from this class. A new kind registers its module with `build`.
    """


@record
class Dense(FeedForwardSpec):
    """One SwiGLU that every token goes through.

    `width`: F, the number of hidden channels. `has_bias`: each of its three matrices adds a bias.
    """

    width: int
    has_bias: bool = False

    def __post_init__(self) -> None:
        check_number(self, "width", int)
        check_claims(self, "has_bias")


@record
class Experts(FeedForwardSpec):
    """A router sends each token to some of many SwiGLUs; one more works for every token.

    `n_experts`: E. `n_active`: A, how many of them work for each token. `width`: F, the hidden
    channels of each. `shared_width`: the hidden channels of the expert for every token.
    Llama 4; see `model.moe`.
    """

    n_experts: int
    n_active: int
    width: int
    shared_width: int

    def __post_init__(self) -> None:
        for name in ("n_experts", "n_active", "width", "shared_width"):
            check_number(self, name, int)
        if self.n_active > self.n_experts:
            raise ValueError("a token can go to each expert once, so Experts.n_active must be at "
                             f"most n_experts={self.n_experts}; got {self.n_active}")


@record
class TemperatureTuning:
    """How queries grow at far positions, in layers without RoPE, so that attention stays sharp.

    The query at position t is multiplied by 1 + `strength` * ln(1 + floor((t + 1) / `floor`)),
    where t counts from 0. So nothing changes before position `floor` - 1. params.json calls these
    fields attn_scale and floor_scale. Source: Nakanishi, Scalable-Softmax, arXiv:2501.19399, has
    the idea; the formula is Meta's code for Llama 4.
    """

    floor: int
    strength: float

    def __post_init__(self) -> None:
        check_number(self, "floor", int)
        check_number(self, "strength", float)


_FEED_FORWARDS = {"dense": Dense, "experts": Experts}
"""The kinds that a config file can name."""


@record
class LayerSpec:
    """What one layer is made of. The defaults describe every text layer from Llama 1 to 3.3.

    `has_rope`: rotate queries and keys by their position. `chunk_size`: attend only inside the
    token's own chunk of this many positions; None attends to everything before the token.
    `has_qk_norm`: after RoPE, divide each head of queries and keys by its own size. `temperature`:
    how queries grow at far positions; None leaves them. `feed_forward`: its kind and size; None
    means a `Dense` as wide as the config's `ffn_dim`. In Llama 4 three layers with RoPE and chunks
    alternate with one that has neither.
    """

    has_rope: bool = True
    chunk_size: int | None = None
    feed_forward: FeedForwardSpec | None = None
    has_qk_norm: bool = False
    temperature: TemperatureTuning | None = None

    def __post_init__(self) -> None:
        check_claims(self, "has_rope", "has_qk_norm")
        if self.temperature is not None and not isinstance(self.temperature, TemperatureTuning):
            raise ValueError("LayerSpec.temperature must be a TemperatureTuning or None; got "
                             f"{short(self.temperature)}")
        if self.chunk_size is not None:
            check_number(self, "chunk_size", int)
        if self.feed_forward is not None and not isinstance(self.feed_forward, FeedForwardSpec):
            raise ValueError("LayerSpec.feed_forward must be a FeedForwardSpec, such as "
                             f"Dense(width=256), or None; got {self.feed_forward!r}")

    def to_dict(self) -> dict[str, Any]:
        """Returns the spec as plain values, ready for JSON.

        Raises ValueError for a kind of feed-forward that config files have no name for.
        """
        plain = without_defaults(dataclasses.asdict(self), ("has_qk_norm", "temperature"),
                                 LayerSpec)
        del plain["feed_forward"]
        if self.feed_forward is None:
            return plain
        kinds = [name for name, kind in _FEED_FORWARDS.items() if type(self.feed_forward) is kind]
        if not kinds:
            raise ValueError("a config file can name only these feed-forwards: "
                             f"{', '.join(_FEED_FORWARDS)}; got {self.feed_forward}. "
                             "Save the weights alone: torch.save(model.state_dict(), ...)")
        sizes = without_defaults(dataclasses.asdict(self.feed_forward), ("has_bias",), Dense)
        return plain | {"feed_forward": {"kind": kinds[0]} | sizes}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "LayerSpec":
        """Returns the spec that `to_dict` wrote. Raises ValueError for other or missing keys."""
        values = dict(plain)
        if (tuning := values.get("temperature")) is not None:
            values["temperature"] = TemperatureTuning(
                **json_object(tuning, "LayerSpec.temperature"))
        if (named := values.get("feed_forward")) is not None:
            sizes = dict(json_object(named, "LayerSpec.feed_forward"))
            kind = sizes.pop("kind", None)
            if not isinstance(kind, str) or kind not in _FEED_FORWARDS:
                raise ValueError(f"no feed-forward is called {short(kind)}; "
                                 f"{nearest(str(kind), _FEED_FORWARDS)}")
            values["feed_forward"] = _FEED_FORWARDS[kind](**sizes)
        return cls(**values)
