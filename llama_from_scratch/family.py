"""Every published Llama up to 3.3 as a row of data, and a tiny twin of each generation.

A twin is a tiny model with the same arithmetic. A row holds what was released: the sizes that
`Llama` is built from, the date, the number of training tokens and the license. Between two
generations only numbers change, which is why `forward` needs no `if`. Notebook 15 goes through
this table row by row. The test of this module checks the exact parameter counts.

`FAMILY` has the text models. `VISION` has the models of Llama 3.2 that see: a text model of Llama
3.1's sizes, an encoder and cross-attention blocks (notebook 22).

Sources: arXiv:2302.13971 (Llama 1), arXiv:2307.09288 (Llama 2), arXiv:2407.21783 (Llama 3 and 3.1),
the model cards, and the licenses and acceptable use policies that come with the weights.
"""

import dataclasses
from collections.abc import Iterable
from types import MappingProxyType

from llama_from_scratch.config import (
    Dense,
    LayerSpec,
    LlamaConfig,
    RopeScaling,
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
"""The license of each generation, including generations that are not built here."""


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


_LATER = {"llama-4": "a Llama 4, with experts"}
"""Published models that are not built here: the beginning of the name, and what it is."""


def config(name: str) -> LlamaConfig:
    """Returns the config of a published model, such as `config("llama-3.1-8b")`.

    It is a `VisionLlamaConfig` for a model of `VISION`.
    Raises ValueError for any other name; the message gives the nearest known name.
    """
    known = {**FAMILY, **VISION}
    if name not in known:
        raise ValueError(_unknown("published Llama", name, known))
    return known[name].config


def first_of(generation: str) -> LlamaConfig:
    """Returns the config in the first row of a generation. Raises ValueError as `tiny` does."""
    known = (*GENERATIONS, VISION_GENERATION)
    if generation not in known:
        raise ValueError(_unknown("generation", generation, known))
    return next(release.config for release in (*FAMILY.values(), *VISION.values())
                if release.generation == generation)


def tiny(generation: str) -> LlamaConfig:
    """Returns a tiny config with the arithmetic of a generation: 64 channels wide, 4 layers deep.

    These come from the generation's first row: theta, RoPE scaling, epsilon, tying, context length,
    the kinds of its first four layers, and whether query heads share key/value heads. (Llama 2
    shares them only at 70B, so its twin does not.) The twin that sees has two cross-attention
    blocks, and an encoder with the row's canvases and epsilon.
    Raises ValueError for an unknown generation; the message gives the nearest known one.
    """
    first = first_of(generation)
    is_grouped = first.n_kv_heads < first.n_heads
    return dataclasses.replace(
        first, dim=64, n_heads=4, n_kv_heads=2 if is_grouped else 4,
        ffn_dim=ffn_dim(64, multiple_of=32), vocab_size=512,
        layers=tuple(map(of_usual_width, first.layers[:4])),
        **(_tiny_vision(first) if isinstance(first, VisionLlamaConfig) else {}),
    )


def _tiny_vision(first: VisionLlamaConfig) -> dict[str, object]:
    """Returns the fields of a tiny config that sees, for a text model of 64 channels, 512 ids."""
    vision = dataclasses.replace(
        first.vision, dim=32, n_heads=2, ffn_dim=64, n_local_layers=4, n_global_layers=2,
        intermediate_layers=(1, 3), tile_px=28, output_dim=64)
    return {"vision": vision, "cross_layers": (1, 3), "image_id": 512}


def of_usual_width(spec: LayerSpec) -> LayerSpec:
    """Returns the spec without the width of a dense feed-forward; the config then decides it."""
    is_dense = isinstance(spec.feed_forward, Dense)
    return dataclasses.replace(spec, feed_forward=None) if is_dense else spec


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    for beginning, kind in _LATER.items():
        if name.startswith(beginning):
            return (f"{name!r} is {kind}, which this version does not build; "
                    f"it has {', '.join(known)}")
    known = list(known)
    if longer := [other for other in known if other.startswith(f"{name}-")]:
        return f"no {what} is called {name!r}; there are {', '.join(longer)}"
    return f"no {what} is called {name!r}; {nearest(name, known)}"
