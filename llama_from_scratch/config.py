"""What a Llama is, as data: frozen records that refuse unknown keys and shapes that cannot work.

A `LlamaConfig` holds the sizes that all layers share. One `LayerSpec` per layer describes what
that layer is made of. The model reads nothing else, so a generation is a row of data (see
`family.py`) and never an `if` in `forward`. A `VisionConfig` describes the part that sees.

Names are those in Meta's params.json (dim, n_heads, n_kv_heads, rope_theta, norm_eps, vocab_size).
Notebook 15 walks through the fields; `n_layers` came with Llama 1, `n_kv_heads` with Llama 2,
`rope_scaling` with 3.1.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any, dataclass_transform


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns a hint for an error message: the known word closest to `word`, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


@dataclass_transform(frozen_default=True, kw_only_default=True)
def record(cls: type) -> type:
    """Returns a frozen, keyword-only dataclass that names the nearest field to a misspelled one."""
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    build = cls.__init__
    fields = tuple(f.name for f in dataclasses.fields(cls))  # names, which torch.compile can trace
    required = tuple(f.name for f in dataclasses.fields(cls)
                     if f.default is dataclasses.MISSING
                     and f.default_factory is dataclasses.MISSING)

    def __init__(self, **values: Any) -> None:
        if tuple(values) != fields:  # equal means that every field was given, in order
            _refuse_other_fields(cls.__name__, values, fields, required)
        build(self, **values)

    cls.__init__ = __init__
    return cls


def _refuse_other_fields(
    name: str, values: Mapping[str, Any], fields: tuple[str, ...], required: tuple[str, ...]
) -> None:
    for key in values:
        if key not in fields:
            raise ValueError(f"{name} has no field {key!r}; {nearest(key, fields)}")
    if missing := [field for field in required if field not in values]:
        raise ValueError(f"{name} needs {', '.join(missing)}; "
                         f"got only {', '.join(values) or 'nothing'}")


LARGEST = 2**63 - 1
"""The largest size: PyTorch counts in signed 64-bit integers."""


def _check_number(
    owner: object, name: str, kind: type, *, above: float = 0.0, below: float | None = None
) -> None:
    """Raises ValueError unless a field is a number of this kind between the two limits.

    A float must also fit into fp32, where it is used: 1e-60 would become 0 there, and 1e60
    infinity. An int in place of a float, such as a theta of 100000 in some files, becomes a float.
    """
    value = getattr(owner, name)
    accepted = (int,) if kind is int else (int, float)
    field = f"{type(owner).__name__}.{name}"
    if isinstance(value, bool) or not isinstance(value, accepted) or not value > above:
        article = "an int" if kind is int else "a number"
        raise ValueError(f"{field} must be {article} above {above:g}; got {_short(value)}")
    if kind is int and value > LARGEST:
        raise ValueError(f"{field} must be at most {LARGEST}; got {_short(value)}")
    if kind is float and not _SMALLEST_FP32 <= value <= _LARGEST_FP32:
        raise ValueError(f"{field} is used in fp32, whose numbers above 0 are {_SMALLEST_FP32:.3g} "
                         f"to {_LARGEST_FP32:.3g}; got {_short(value)}")
    if below is not None and not value < below:
        raise ValueError(f"{field} must be below {below:g}; got {_short(value)}")
    if kind is float:
        object.__setattr__(owner, name, float(value))


_SMALLEST_FP32, _LARGEST_FP32 = 2.0**-126, (2 - 2.0**-23) * 2.0**127


def _short(value: object) -> str:
    """Returns a value as an error message shows it, shortened if it is long."""
    if isinstance(value, int) and value.bit_length() > 256:  # repr fails for very long ints
        return f"an int of {value.bit_length()} bits"
    return f"{value!r:.80}"


def _check_claims(owner: object, *names: str) -> None:
    """Raises ValueError unless these fields are True or False."""
    for name in names:
        if not isinstance(value := getattr(owner, name), bool):
            raise ValueError(f"{type(owner).__name__}.{name} must be True or False; "
                             f"got {_short(value)}")


def _without_defaults(plain: dict[str, Any], names: tuple[str, ...], cls: type) -> dict[str, Any]:
    """Returns `plain` without the named fields that have their default value.

    This way a new field changes no byte of files that do not use it, and older versions can still
    read them.
    """
    return {name: value for name, value in plain.items()
            if name not in names or value != cls.__dataclass_fields__[name].default}


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
            _check_number(self, name, float)
        _check_number(self, "original_max_seq_len", int)
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
        _check_number(self, "width", int)
        _check_claims(self, "has_bias")


_FEED_FORWARDS = {"dense": Dense}
"""The kinds that a config file can name."""


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} must be a JSON object; got {_short(value)}")
    return value


@record
class LayerSpec:
    """What one layer is made of. The defaults describe every text layer from Llama 1 to 3.3.

    `has_rope`: rotate queries and keys by their position. `chunk_size`: attend only inside the
    token's own chunk of this many positions; None attends to everything before the token. Llama 4
    has layers with and without RoPE, and with and without chunks. `feed_forward`: its kind and
    size; None means a `Dense` as wide as the config's `ffn_dim`.
    """

    has_rope: bool = True
    chunk_size: int | None = None
    feed_forward: FeedForwardSpec | None = None

    def __post_init__(self) -> None:
        _check_claims(self, "has_rope")
        if self.chunk_size is not None:
            _check_number(self, "chunk_size", int)
        if self.feed_forward is not None and not isinstance(self.feed_forward, FeedForwardSpec):
            raise ValueError("LayerSpec.feed_forward must be a FeedForwardSpec, such as "
                             f"Dense(width=256), or None; got {self.feed_forward!r}")

    def to_dict(self) -> dict[str, Any]:
        """Returns the spec as plain values, ready for JSON.

        Raises ValueError for a kind of feed-forward that config files have no name for.
        """
        plain = {"has_rope": self.has_rope, "chunk_size": self.chunk_size}
        if self.feed_forward is None:
            return plain
        kinds = [name for name, kind in _FEED_FORWARDS.items() if type(self.feed_forward) is kind]
        if not kinds:
            raise ValueError("a config file can name only these feed-forwards: "
                             f"{', '.join(_FEED_FORWARDS)}; got {self.feed_forward}. "
                             "Save the weights alone: torch.save(model.state_dict(), ...)")
        sizes = _without_defaults(dataclasses.asdict(self.feed_forward), ("has_bias",), Dense)
        return plain | {"feed_forward": {"kind": kinds[0]} | sizes}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "LayerSpec":
        """Returns the spec that `to_dict` wrote. Raises ValueError for other or missing keys."""
        values = dict(plain)
        if (named := values.get("feed_forward")) is not None:
            sizes = dict(_object(named, "LayerSpec.feed_forward"))
            kind = sizes.pop("kind", None)
            if not isinstance(kind, str) or kind not in _FEED_FORWARDS:
                raise ValueError(f"no feed-forward is called {_short(kind)}; "
                                 f"{nearest(str(kind), _FEED_FORWARDS)}")
            values["feed_forward"] = _FEED_FORWARDS[kind](**sizes)
        return cls(**values)


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
            _check_number(self, name, int)
        _check_number(self, "norm_eps", float, below=1.0)
        _check_number(self, "rope_theta", float)
        _check_number(self, "rope_linear_factor", float)
        _check_claims(self, "is_tied", "has_qkv_bias", "has_wo_bias", "has_ffn_bias")
        if self.rope_scaling is not None and not isinstance(self.rope_scaling, RopeScaling):
            raise ValueError("LlamaConfig.rope_scaling must be a RopeScaling or None; "
                             f"got {_short(self.rope_scaling)}")
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
        _check_number(self, "explicit_head_dim", int)
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
        plain = _without_defaults(dataclasses.asdict(self), _OF_RELATIVES, LlamaConfig)
        return plain | {"layers": [spec.to_dict() for spec in self.layers]}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "LlamaConfig":
        """Returns the config that `to_dict` wrote. Raises ValueError for other or missing keys."""
        values = dict(plain)
        if isinstance(values.get("layers"), list):
            values["layers"] = tuple(LayerSpec.from_dict(_object(spec, "LayerSpec"))
                                     for spec in values["layers"])
        if values.get("rope_scaling") is not None:
            scaling = _object(values["rope_scaling"], "LlamaConfig.rope_scaling")
            values["rope_scaling"] = RopeScaling(**scaling)
        if not isinstance(values.get("is_tied", False), bool):
            raise ValueError("LlamaConfig.is_tied must be True or False; "
                             f"got {_short(values['is_tied'])}")
        return cls(**values)


_OF_RELATIVES = ("explicit_head_dim", "has_qkv_bias", "has_wo_bias", "has_ffn_bias",
                 "rope_linear_factor")
"""Fields that no published Llama uses."""


@record
class VisionConfig:
    """Everything that decides the shape and the arithmetic of a vision encoder and its projector.

    An image is cut into at most `max_tiles` square tiles with edges of `tile_px` pixels, and each
    tile into patches with edges of `patch_px` pixels. `aspect_ratios`: the supported canvases as
    (rows, columns) of tiles. An image's aspect ratio id is its canvas's place here, counted from 1;
    id 0 is an image of padding. `dim`: W, the width of the encoder. `n_local_layers` come first and
    have no gates; `n_global_layers` follow and are gated. `intermediate_layers`: the state that
    enters each of these local layers, counted from 0, becomes part of the encoder's result.
    `output_dim`: D, the width that the projector gives, which is the text model's.
    """

    dim: int
    n_heads: int
    ffn_dim: int
    n_local_layers: int
    n_global_layers: int
    intermediate_layers: tuple[int, ...]
    tile_px: int
    patch_px: int
    max_tiles: int
    aspect_ratios: tuple[tuple[int, int], ...]
    norm_eps: float
    output_dim: int

    def __post_init__(self) -> None:
        for name in ("dim", "n_heads", "ffn_dim", "n_local_layers", "n_global_layers", "tile_px",
                     "patch_px", "max_tiles", "output_dim"):
            _check_number(self, name, int)
        _check_number(self, "norm_eps", float, below=1.0)
        if self.dim % self.n_heads:
            raise ValueError("the heads share dim equally, so n_heads must divide it; "
                             f"got dim={self.dim}, n_heads={self.n_heads}")
        if self.tile_px % self.patch_px:
            raise ValueError("a tile is cut into whole patches, so patch_px must divide tile_px; "
                             f"got tile_px={self.tile_px}, patch_px={self.patch_px}")
        self._check_intermediate_layers()
        self._check_aspect_ratios()

    def _check_intermediate_layers(self) -> None:
        layers = self.intermediate_layers
        if (not isinstance(layers, tuple) or not layers or not all(map(_is_int, layers))
                or list(layers) != sorted(set(layers))
                or not 0 <= layers[0] <= layers[-1] < self.n_local_layers):
            raise ValueError("VisionConfig.intermediate_layers must be a tuple of ascending "
                             f"numbers of local layers, from 0 to {self.n_local_layers - 1}, "
                             f"with at least one; got {_short(layers)}")

    def _check_aspect_ratios(self) -> None:
        ratios = self.aspect_ratios
        if not isinstance(ratios, tuple) or not ratios or not all(map(_is_canvas, ratios)):
            raise ValueError("VisionConfig.aspect_ratios must be a tuple with (rows, columns) of "
                             f"each canvas, such as ((1, 1), (1, 2)); got {_short(ratios)}")
        if len(set(ratios)) < len(ratios):
            raise ValueError("each of VisionConfig.aspect_ratios must be given once, because its "
                             f"place is its id; got {_short(ratios)}")
        if large := [ratio for ratio in ratios if ratio[0] * ratio[1] > self.max_tiles]:
            raise ValueError("no canvas of VisionConfig.aspect_ratios may have more than "
                             f"max_tiles={self.max_tiles} tiles; got {_short(large[0])}")

    @property
    def head_dim(self) -> int:
        """K, the width of a head: an equal share of dim."""
        return self.dim // self.n_heads

    @property
    def n_patches(self) -> int:
        """P, the patches of one tile."""
        return (self.tile_px // self.patch_px) ** 2

    @property
    def n_tokens(self) -> int:
        """The tokens of one tile: its class token and its patches."""
        return self.n_patches + 1

    @property
    def n_features(self) -> int:
        """The width of the encoder's result: the last state and each intermediate state."""
        return self.dim * (1 + len(self.intermediate_layers))

    @property
    def n_tiles(self) -> tuple[int, ...]:
        """How many tiles an image of each aspect ratio id has; an image of padding has one."""
        return 1, *(rows * columns for rows, columns in self.aspect_ratios)

    @property
    def param_counts(self) -> dict[str, int]:
        """The number of parameters by place; the values sum to `n_params`. See `vision.costs`."""
        return dict(_vision_costs().param_counts(self))

    @property
    def n_params(self) -> int:
        return sum(self.param_counts.values())

    def to_dict(self) -> dict[str, Any]:
        """Returns the config as plain lists and numbers, ready for JSON."""
        return dataclasses.asdict(self) | {
            "intermediate_layers": list(self.intermediate_layers),
            "aspect_ratios": [list(ratio) for ratio in self.aspect_ratios]}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "VisionConfig":
        """Returns the config that `to_dict` wrote. Raises ValueError for other or missing keys."""
        values = dict(plain)
        for name in ("intermediate_layers", "aspect_ratios"):
            if isinstance(values.get(name), list):
                values[name] = tuple(tuple(entry) if isinstance(entry, list) else entry
                                     for entry in values[name])
        return cls(**values)


@record
class VisionLlamaConfig(LlamaConfig):
    """A `LlamaConfig` with eyes: a text model to which a vision encoder is attached.

    `vision`: the encoder. `cross_layers`: the text layers, counted from 0, that have a
    cross-attention block before them. `image_id`: the id that stands for an image in the text.
    `n_image_ids`: how many ids the model can read after its vocabulary. They have embeddings of
    their own and no logits. Only `image_id` is used; the released models have 8.
    """

    vision: VisionConfig
    cross_layers: tuple[int, ...]
    image_id: int
    n_image_ids: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.vision, VisionConfig):
            raise ValueError("VisionLlamaConfig.vision must be a VisionConfig; got "
                             f"{_short(self.vision)}")
        if self.vision.output_dim != self.dim:
            raise ValueError("the encoder's projector must give vectors as wide as the text "
                             f"model's, so vision.output_dim must be {self.dim}; got "
                             f"{self.vision.output_dim}")
        layers = self.cross_layers
        if (not isinstance(layers, tuple) or not layers or not all(map(_is_int, layers))
                or list(layers) != sorted(set(layers))
                or not 0 <= layers[0] <= layers[-1] < self.n_layers):
            raise ValueError("VisionLlamaConfig.cross_layers must be a tuple of ascending numbers "
                             f"of text layers, from 0 to {self.n_layers - 1}, with at least one; "
                             f"got {_short(layers)}")
        _check_number(self, "n_image_ids", int)
        if not _is_int(self.image_id) or not self.vocab_size <= self.image_id < self.n_ids:
            raise ValueError("VisionLlamaConfig.image_id must be one of the ids after the "
                             f"vocabulary, from {self.vocab_size} to {self.n_ids - 1}; got "
                             f"{_short(self.image_id)}")

    @classmethod
    def seeing(cls, text: LlamaConfig, **fields: Any) -> "VisionLlamaConfig":
        """Returns the config of `text` with eyes; `fields` are those that a text model lacks."""
        return cls(**{name: getattr(text, name) for name in LlamaConfig.__dataclass_fields__},
                   **fields)

    @property
    def text(self) -> LlamaConfig:
        """The config of the text model alone."""
        return LlamaConfig(**{name: getattr(self, name)
                              for name in LlamaConfig.__dataclass_fields__})

    @property
    def n_ids(self) -> int:
        """How many ids the model can read: its vocabulary and the ids for images."""
        return self.vocab_size + self.n_image_ids

    def new_model(self) -> Any:
        """Returns the `VisionLlama` of this config, with fresh weights."""
        return _adapter().VisionLlama(self.text.new_model(), self)

    @property
    def param_counts(self) -> dict[str, int]:
        """The number of parameters by place; see `vision.costs.seeing_param_counts`."""
        return dict(_vision_costs().seeing_param_counts(self))

    @property
    def image_tokens(self) -> int:
        """The image tokens that cross-attention sees of an image with `max_tiles` tiles."""
        return self.vision.max_tiles * self.vision.n_tokens

    def flops_per_token(self, context: int, image_tokens: int = 0) -> int:
        """Returns the operations for one decoded token that sees `context` tokens.

        `image_tokens`: how many tokens of images it sees. Without any, the blocks of
        cross-attention are skipped. The images themselves are computed once; see `image_flops`.
        """
        return _vision_costs().flops_per_token(self, context=context, image_tokens=image_tokens)

    @property
    def image_flops(self) -> dict[str, int]:
        """The operations until an image with `max_tiles` tiles is in the cache, by stage."""
        return dict(_vision_costs().image_flops(self))

    def kv_bytes_per_image(self, bytes_per_value: int) -> int:
        """Returns the bytes that the cache keeps of one image, in addition to the text.

        They are the same for every image, as if it had `max_tiles` tiles.
        """
        return _vision_costs().kv_values_per_image(self) * bytes_per_value

    def to_dict(self) -> dict[str, Any]:
        """Returns the config as plain dicts, lists and numbers, ready for JSON."""
        return super().to_dict() | {
            "vision": self.vision.to_dict(), "cross_layers": list(self.cross_layers)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "VisionLlamaConfig":
        """Returns the config that `to_dict` wrote. Raises ValueError for other or missing keys."""
        values = dict(plain)
        if "vision" in values:
            values["vision"] = VisionConfig.from_dict(
                _object(values["vision"], "VisionLlamaConfig.vision"))
        if isinstance(values.get("cross_layers"), list):
            values["cross_layers"] = tuple(values["cross_layers"])
        return super().from_dict(values)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_canvas(value: object) -> bool:
    return (isinstance(value, tuple) and len(value) == 2 and all(map(_is_int, value))
            and min(value) > 0)


def _transformer():
    """Returns `model.transformer`, imported late because it is built on this module."""
    from llama_from_scratch.model import transformer

    return transformer


def _adapter():
    """Returns `vision.adapter`, imported late for the same reason."""
    from llama_from_scratch.vision import adapter

    return adapter


def _costs():
    """Returns `model.costs`, imported late because it builds the model that a config describes."""
    from llama_from_scratch.model import costs

    return costs


def _vision_costs():
    """Returns `vision.costs`, imported late for the same reason."""
    from llama_from_scratch.vision import costs

    return costs
