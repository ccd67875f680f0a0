"""Every published Llama as a row of data, and a tiny twin of each generation.

A twin is a tiny model with the same arithmetic. A row holds what was released: the sizes that
`Llama` is built from, the date, the number of training tokens and the license. Between two
generations only numbers change, which is why `forward` needs no `if`. Notebook 15 goes through
this table row by row. The test of this module checks the exact parameter counts.

`FAMILY` has the models that were released as text models; all their layers are alike. `VISION` has
the models of Llama 3.2 that see: a text model of Llama 3.1's sizes, an encoder and cross-attention
blocks (notebook 22). `FUSION` has Llama 4, whose text model reads images as tokens, and `EXPERTS`
its text models alone. They were not released alone, and their layers differ from one another.

Sources: arXiv:2302.13971 (Llama 1), arXiv:2307.09288 (Llama 2), arXiv:2407.21783 (Llama 3 and 3.1),
the model cards, the licenses and acceptable use policies that come with the weights, and the code
released with them.
"""

import dataclasses
from collections.abc import Iterable
from types import MappingProxyType

from llama_from_scratch.config import (
    Dense,
    Experts,
    FusionLlamaConfig,
    ImageIds,
    LayerSpec,
    LlamaConfig,
    RopeScaling,
    TemperatureTuning,
    TileEncoderConfig,
    VisionConfig,
    VisionLlamaConfig,
    nearest,
    record,
)


@record
class License:
    """The license of a generation's weights, and one line about what it allows.

    The line is not legal advice; only the text that comes with the weights is binding.
    """

    name: str
    allows: str


_WITH_LIMITS = ("commercial use too; a company with more than 700 million monthly users on the day "
                "of the release must ask Meta; ")
_MAY_IMPROVE = "what it writes may improve another model, whose name then begins with \"Llama\""
LICENSES = MappingProxyType({
    "llama-1": License(
        name="LLaMA noncommercial license",
        allows="research only, nothing commercial; Meta gave the weights to those who applied"),
    "llama-2": License(
        name="Llama 2 Community License",
        allows=_WITH_LIMITS + "what it writes must not improve other language models"),
    "llama-3": License(
        name="Meta Llama 3 Community License",
        allows=_WITH_LIMITS + "what it writes must not improve other language models"),
    "llama-3.1": License(name="Llama 3.1 Community License", allows=_WITH_LIMITS + _MAY_IMPROVE),
    "llama-3.2": License(
        name="Llama 3.2 Community License",
        allows=_WITH_LIMITS + _MAY_IMPROVE + "; its multimodal models not for people and companies "
                                             "in the European Union"),
    "llama-3.3": License(name="Llama 3.3 Community License", allows=_WITH_LIMITS + _MAY_IMPROVE),
    "llama-4": License(
        name="Llama 4 Community License",
        allows=_WITH_LIMITS + _MAY_IMPROVE + "; all its models are multimodal and not for people "
                                             "and companies in the European Union"),
})
"""The license of each generation."""


@record
class Release:
    """One published model.

    `n_tokens`: the published number of training tokens, None where none was given for this size.
    """

    name: str
    generation: str
    released: str
    n_tokens: float | None
    config: LlamaConfig
    license: License


def ffn_dim(dim: int, *, multiple_of: int, multiplier: float | None = None) -> int:
    """Returns the feed-forward width by Meta's rule: 2/3 of 4 dim, times `multiplier`, rounded up.

    It is rounded up to a multiple of `multiple_of`. Both products are truncated to an int, in this
    order; another order gives another width for some sizes.
    """
    width = int(2 * (4 * dim) / 3)
    if multiplier is not None:
        width = int(multiplier * width)
    return -(-width // multiple_of) * multiple_of


def _scaling(factor: float) -> RopeScaling:
    return RopeScaling(factor=factor, low_freq_factor=1.0, high_freq_factor=4.0,
                       original_max_seq_len=8192)


# The fields that all sizes of a generation share.
_LLAMA_1 = dict(vocab_size=32000, max_seq_len=2048, norm_eps=1e-6, rope_theta=1e4)
_LLAMA_2 = dict(vocab_size=32000, max_seq_len=4096, norm_eps=1e-5, rope_theta=1e4)
_LLAMA_3 = dict(vocab_size=128256, max_seq_len=8192, norm_eps=1e-5, rope_theta=5e5)
_LLAMA_3_1 = _LLAMA_3 | dict(max_seq_len=131072, rope_scaling=_scaling(8.0))
_LLAMA_3_2 = _LLAMA_3 | dict(max_seq_len=131072, rope_scaling=_scaling(32.0), is_tied=True)

# name: generation, released, tokens, shared, dim, layers, heads, kv heads, ffn multiplier and
# multiple of
_ROWS = {
    "llama-1-7b": ("llama-1", "2023-02-24", 1.0e12, _LLAMA_1, 4096, 32, 32, 32, None, 256),
    "llama-1-13b": ("llama-1", "2023-02-24", 1.0e12, _LLAMA_1, 5120, 40, 40, 40, None, 256),
    "llama-1-33b": ("llama-1", "2023-02-24", 1.4e12, _LLAMA_1, 6656, 60, 52, 52, None, 256),
    "llama-1-65b": ("llama-1", "2023-02-24", 1.4e12, _LLAMA_1, 8192, 80, 64, 64, None, 256),
    "llama-2-7b": ("llama-2", "2023-07-18", 2.0e12, _LLAMA_2, 4096, 32, 32, 32, None, 256),
    "llama-2-13b": ("llama-2", "2023-07-18", 2.0e12, _LLAMA_2, 5120, 40, 40, 40, None, 256),
    "llama-2-70b": ("llama-2", "2023-07-18", 2.0e12, _LLAMA_2, 8192, 80, 64, 8, 1.3, 4096),
    "llama-3-8b": ("llama-3", "2024-04-18", 15e12, _LLAMA_3, 4096, 32, 32, 8, 1.3, 1024),
    "llama-3-70b": ("llama-3", "2024-04-18", 15e12, _LLAMA_3, 8192, 80, 64, 8, 1.3, 4096),
    "llama-3.1-8b": ("llama-3.1", "2024-07-23", 15e12, _LLAMA_3_1, 4096, 32, 32, 8, 1.3, 1024),
    "llama-3.1-70b": ("llama-3.1", "2024-07-23", 15e12, _LLAMA_3_1, 8192, 80, 64, 8, 1.3, 4096),
    "llama-3.1-405b": ("llama-3.1", "2024-07-23", 15e12, _LLAMA_3_1, 16384, 126, 128, 8, 1.2, 4096),
    "llama-3.2-1b": ("llama-3.2", "2024-09-25", 9e12, _LLAMA_3_2, 2048, 16, 32, 8, 1.5, 256),
    "llama-3.2-3b": ("llama-3.2", "2024-09-25", 9e12, _LLAMA_3_2, 3072, 28, 24, 8, 1.0, 256),
    "llama-3.3-70b": ("llama-3.3", "2024-12-06", 15e12, _LLAMA_3_1, 8192, 80, 64, 8, 1.3, 4096),
}


def _release(name: str) -> Release:
    generation, released, n_tokens, shared, dim, n_layers, n_heads, n_kv_heads, *width = _ROWS[name]
    multiplier, multiple_of = width
    config = LlamaConfig(
        dim=dim, n_heads=n_heads, n_kv_heads=n_kv_heads, layers=(LayerSpec(),) * n_layers,
        ffn_dim=ffn_dim(dim, multiple_of=multiple_of, multiplier=multiplier), **shared,
    )
    return Release(name=name, generation=generation, released=released, n_tokens=n_tokens,
                   config=config, license=LICENSES[generation])


VISION_GENERATION = "llama-3.2-vision"
_CANVASES = ((1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1))


def _vision_release(name: str, text: str, *, tile_px: int) -> Release:
    """Returns the row of a model that sees; `text` has its text model's sizes."""
    like = FAMILY[text].config
    vision = VisionConfig(
        dim=1280, n_heads=16, ffn_dim=5120, n_local_layers=32, n_global_layers=8,
        intermediate_layers=(3, 7, 15, 23, 30), tile_px=tile_px, patch_px=14, max_tiles=4,
        aspect_ratios=_CANVASES, norm_eps=1e-5, output_dim=like.dim)
    config = VisionLlamaConfig.seeing(like, vision=vision, image_id=like.vocab_size,
                                      cross_layers=tuple(range(3, like.n_layers, 4)))
    # The model card counts pairs of an image and a text, 6 billion, and not tokens.
    return Release(name=name, generation=VISION_GENERATION, released="2024-09-25", n_tokens=None,
                   config=config, license=LICENSES["llama-3.2"])


FAMILY = MappingProxyType({name: _release(name) for name in _ROWS})
"""The text models by name."""
GENERATIONS = tuple(dict.fromkeys(release.generation for release in FAMILY.values()))
"""The generations of text models, in order."""
VISION = MappingProxyType({name: _vision_release(name, text, tile_px=tile_px)
                           for name, text, tile_px in (
    ("llama-3.2-11b-vision", "llama-3.1-8b", 448),
    ("llama-3.2-11b-vision-instruct", "llama-3.1-8b", 560),
    ("llama-3.2-90b-vision", "llama-3.1-70b", 560),
    ("llama-3.2-90b-vision-instruct", "llama-3.1-70b", 560),
)})
"""The models that see, by name. Only the base model of 11B has tiles of 448 pixels."""


EXPERT_GENERATION, FUSION_GENERATION = "llama-4", "llama-4-vision"
_CHUNK, _EXPERT_WIDTH, _EVERY_FOURTH = 8192, 8192, 4


def _iropes(n_layers: int, *, experts: Experts, step: int, has_qk_norm: bool) -> tuple[
        LayerSpec, ...]:
    """Returns Llama 4's layers: every fourth without RoPE and chunks, every `step`-th with experts.

    The others have the dense feed-forward of the config.
    """
    with_rope = LayerSpec(chunk_size=_CHUNK, has_qk_norm=has_qk_norm)
    without = LayerSpec(has_rope=False, temperature=TemperatureTuning(floor=8192, strength=0.1))
    return tuple(dataclasses.replace(with_rope if (i + 1) % _EVERY_FOURTH else without,
                                     feed_forward=None if (i + 1) % step else experts)
                 for i in range(n_layers))


# Only Scout scales RoPE, and by other constants than Llama 3.1: nothing is blended.
_SCOUT = dict(n_experts=16, step=1, has_qk_norm=True, n_tokens=40e12, rope_scaling=RopeScaling(
    factor=16.0, low_freq_factor=1.0, high_freq_factor=1.0, original_max_seq_len=8192))
_MAVERICK = dict(n_experts=128, step=2, has_qk_norm=False, n_tokens=22e12, rope_scaling=None)
# name: what the size is, context length
_LLAMA_4 = {
    "llama-4-scout-17b-16e": (_SCOUT, 262_144),
    "llama-4-scout-17b-16e-instruct": (_SCOUT, 10_485_760),
    "llama-4-maverick-17b-128e": (_MAVERICK, 262_144),
    "llama-4-maverick-17b-128e-instruct": (_MAVERICK, 1_048_576),
}


def _expert_release(name: str) -> Release:
    """Returns the row of the text model of a Llama 4."""
    size, max_seq_len = _LLAMA_4[name]
    experts = Experts(n_experts=size["n_experts"], n_active=1, width=_EXPERT_WIDTH,
                      shared_width=_EXPERT_WIDTH)
    config = LlamaConfig(
        dim=5120, n_heads=40, n_kv_heads=8, ffn_dim=16384, vocab_size=202_048,
        max_seq_len=max_seq_len, norm_eps=1e-5, rope_theta=5e5, rope_scaling=size["rope_scaling"],
        layers=_iropes(48, experts=experts, step=size["step"], has_qk_norm=size["has_qk_norm"]))
    return Release(name=f"{name}-text", generation=EXPERT_GENERATION, released="2025-04-05",
                   n_tokens=size["n_tokens"], config=config, license=LICENSES["llama-4"])


def _fusion_release(name: str) -> Release:
    """Returns the row of a whole Llama 4."""
    text = EXPERTS[f"{name}-text"]
    vision = TileEncoderConfig(
        dim=1408, n_heads=16, ffn_dim=5632, n_layers=34, tile_px=336, patch_px=14, max_tiles=16,
        adapter_dim=4096, output_dim=text.config.dim, norm_eps=1e-5)
    ids = ImageIds(image_start=200_080, image_end=200_081, image=200_090, patch=200_092,
                   tile_x_separator=200_084, tile_y_separator=200_085)
    config = FusionLlamaConfig.seeing(text.config, vision=vision, image_ids=ids)
    return dataclasses.replace(text, name=name, generation=FUSION_GENERATION, config=config)


EXPERTS = MappingProxyType({row.name: row for row in map(_expert_release, _LLAMA_4)})
"""The text models with experts, by name. Each is the larger part of a model of `FUSION`."""
FUSION = MappingProxyType({name: _fusion_release(name) for name in _LLAMA_4})
"""The models that read images as tokens, by name."""
TEXT_GENERATIONS = (*GENERATIONS, EXPERT_GENERATION)
"""The generations whose twin is a text model, in order: first `FAMILY`, then `EXPERTS`."""


def config(name: str) -> LlamaConfig:
    """Returns the config of a published model, such as `config("llama-3.1-8b")`.

    It is a `VisionLlamaConfig` for a model of `VISION`, and a `FusionLlamaConfig` for one of
    `FUSION`.
    Raises ValueError for any other name; the message gives the nearest known name.
    """
    known = {**FAMILY, **VISION, **FUSION, **EXPERTS}
    if name not in known:
        raise ValueError(_unknown("published Llama", name, known))
    return known[name].config


def first_of(generation: str) -> LlamaConfig:
    """Returns the config in the first row of a generation. Raises ValueError as `tiny` does."""
    rows = (*FAMILY.values(), *VISION.values(), *EXPERTS.values(),
            *FUSION.values())
    known = tuple(dict.fromkeys(release.generation for release in rows))
    if generation not in known:
        raise ValueError(_unknown("generation", generation, known))
    return next(release.config for release in rows if release.generation == generation)


def tiny(generation: str) -> LlamaConfig:
    """Returns a tiny config with the arithmetic of a generation: 64 channels wide, 4 layers deep.

    These come from the generation's first row: theta, RoPE scaling, epsilon, tying, context length,
    the kinds of its first four layers, and whether query heads share key/value heads. (Llama 2
    shares them only at 70B, so its twin does not.) The twin of Llama 3.2 Vision has two
    cross-attention blocks, and an encoder with the row's canvases and epsilon. A layer with experts
    has four, of half the usual width, as the published ones.
    Raises ValueError for an unknown generation; the message gives the nearest known one.
    """
    first = first_of(generation)
    is_grouped = first.n_kv_heads < first.n_heads
    return dataclasses.replace(
        first, dim=64, n_heads=4, n_kv_heads=2 if is_grouped else 4,
        ffn_dim=_TINY_WIDTH, vocab_size=512,
        layers=tuple(small_spec(spec, width=_TINY_WIDTH // 2) for spec in first.layers[:4]),
        **(_tiny_vision(first) if isinstance(first, VisionLlamaConfig) else {}),
        **(_tiny_fusion(first) if isinstance(first, FusionLlamaConfig) else {}),
    )


def _tiny_vision(first: VisionLlamaConfig) -> dict[str, object]:
    """Returns the fields of a tiny config that sees, for a text model of 64 channels, 512 ids."""
    vision = dataclasses.replace(
        first.vision, dim=32, n_heads=2, ffn_dim=64, n_local_layers=4, n_global_layers=2,
        intermediate_layers=(1, 3), tile_px=28, output_dim=64)
    return {"vision": vision, "cross_layers": (1, 3), "image_id": 512}


def _tiny_fusion(first: FusionLlamaConfig) -> dict[str, object]:
    """Returns the fields of a tiny config that reads images as tokens, for the same text model.

    The ids of images are at the end of the 512, as far apart as in the released vocabulary.
    """
    vision = dataclasses.replace(first.vision, dim=16, n_heads=2, ffn_dim=64, n_layers=2,
                                 tile_px=56, adapter_dim=32, output_dim=64)
    ids = dataclasses.asdict(first.image_ids)
    shift = 511 - max(ids.values())
    return {"vision": vision, "image_ids": ImageIds(**{key: i + shift for key, i in ids.items()})}


_TINY_WIDTH = ffn_dim(64, multiple_of=32)


def small_spec(spec: LayerSpec, *, width: int) -> LayerSpec:
    """Returns the spec for a small model: a dense feed-forward has the config's width.

    Experts have this `width` each, and there are four.
    """
    experts = spec.feed_forward
    if isinstance(experts, Dense):
        experts = None
    elif isinstance(experts, Experts):
        experts = dataclasses.replace(experts, n_experts=4, width=width, shared_width=width)
    return dataclasses.replace(spec, feed_forward=experts)


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    known = list(known)
    if longer := [other for other in known if other.startswith(f"{name}-")]:
        return f"no {what} is called {name!r}; there are {', '.join(longer)}"
    return f"no {what} is called {name!r}; {nearest(name, known)}"
