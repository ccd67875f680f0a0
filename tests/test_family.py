import dataclasses

import pytest
import torch

from llama_from_scratch import family
from llama_from_scratch.config import Dense, LayerSpec
from llama_from_scratch.model.transformer import Llama

N_PARAMS = {
    "llama-1-7b": 6_738_415_616, "llama-1-13b": 13_015_864_320,
    "llama-1-33b": 32_528_943_616, "llama-1-65b": 65_285_660_672,
    "llama-2-7b": 6_738_415_616, "llama-2-13b": 13_015_864_320, "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248, "llama-3-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248, "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400, "llama-3.2-3b": 3_212_749_824,
    "llama-3.3-70b": 70_553_706_496,
}  # fmt: skip

KV_BYTES = {
    "llama-1-7b": 524_288, "llama-1-13b": 819_200, "llama-1-33b": 1_597_440,
    "llama-2-70b": 327_680, "llama-3-8b": 131_072, "llama-3.1-405b": 516_096,
    "llama-3.2-1b": 32_768, "llama-3.2-3b": 114_688,
}  # fmt: skip


def test_the_family_is_complete():
    assert set(family.FAMILY) == set(N_PARAMS)


@pytest.mark.parametrize("name", N_PARAMS)
def test_parameter_counts_are_those_published_to_the_last_digit(name):
    assert family.config(name).n_params == N_PARAMS[name]


@pytest.mark.parametrize("name", N_PARAMS)
def test_the_model_that_is_built_has_the_parameters_that_the_config_counts(name):
    with torch.device("meta"):
        model = Llama(family.config(name))
    assert sum(p.numel() for p in model.parameters()) == N_PARAMS[name]


@pytest.mark.parametrize("name", KV_BYTES)
def test_kv_cache_bytes_per_token_in_bf16(name):
    assert family.config(name).kv_bytes_per_token(2) == KV_BYTES[name]


def test_the_order_of_the_two_truncations_in_the_ffn_rule_matters():
    assert family.ffn_dim(8192, multiple_of=4096, multiplier=1.3) == 28672
    assert family.ffn_dim(4096, multiple_of=256) == 11008
    in_order, at_once = int(1.3 * 26), int(1.3 * 8 * 10 / 3)
    assert family.ffn_dim(10, multiple_of=1, multiplier=1.3) == in_order != at_once


@pytest.mark.parametrize("generation", family.GENERATIONS)
def test_tiny_twins_keep_what_makes_the_generation(generation):
    twin = family.tiny(generation)
    real = next(r.config for r in family.FAMILY.values() if r.generation == generation)
    for field in ("rope_theta", "rope_scaling", "norm_eps", "is_tied", "max_seq_len"):
        assert getattr(twin, field) == getattr(real, field)
    assert (twin.n_kv_heads < twin.n_heads) == (real.n_kv_heads < real.n_heads)
    assert twin.n_params < 300_000


def test_the_first_of_a_generation_is_its_first_row():
    assert family.first_of("llama-3.1") is family.config("llama-3.1-8b")
    assert family.first_of("llama-3.3") is family.config("llama-3.3-70b")
    assert [family.first_of(generation) for generation in family.GENERATIONS] == [
        family.config(name) for name in ("llama-1-7b", "llama-2-7b", "llama-3-8b", "llama-3.1-8b",
                                         "llama-3.2-1b", "llama-3.3-70b")]


def test_a_tiny_twin_keeps_what_the_first_four_layers_are(monkeypatch):
    plan = (LayerSpec(), LayerSpec(has_rope=False), LayerSpec(chunk_size=8),
            LayerSpec(has_rope=False, chunk_size=8), LayerSpec())
    wide = (plan[0], dataclasses.replace(plan[1], feed_forward=Dense(width=14336)), *plan[2:])
    first = family.FAMILY["llama-3-8b"]
    planned = dataclasses.replace(first, config=dataclasses.replace(first.config, layers=wide))
    monkeypatch.setattr(family, "FAMILY", {**family.FAMILY, "llama-3-8b": planned})
    assert family.tiny("llama-3").layers == plan[:4]
    assert family.tiny("llama-3.1").layers == (LayerSpec(),) * 4


def test_every_release_has_the_license_of_its_generation():
    assert set(family.LICENSES) == set(family.TEXT_GENERATIONS)
    for row in (family.FAMILY | family.EXPERTS).values():
        assert row.license is family.LICENSES[row.generation]
        assert row.license.allows and "\n" not in row.license.allows


def test_licenses_tell_what_sets_them_apart():
    allows = {generation: row.allows for generation, row in family.LICENSES.items()}
    names = [row.name for row in family.LICENSES.values()]
    assert len(set(names)) == len(names) and "Llama 2 Community License" in names
    has_clause = {generation for generation, line in allows.items()
                  if "700 million monthly users" in line and "commercial use" in line}
    assert has_clause == allows.keys() - {"llama-1"} and "research only" in allows["llama-1"]
    assert {g for g, line in allows.items() if "European Union" in line} == {"llama-3.2", "llama-4"}
    assert {g for g, line in allows.items() if "must not improve" in line} == {"llama-2", "llama-3"}


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'llama-3.1-8b'"):
        family.config("llama-3.1-8B")
    with pytest.raises(ValueError, match="did you mean 'llama-3.2'"):
        family.tiny("llama-32")
    with pytest.raises(ValueError, match="no generation is called 'llama-3-8b'"):
        family.first_of("llama-3-8b")


def test_the_beginning_of_a_name_is_refused_with_the_names_that_begin_with_it():
    with pytest.raises(ValueError, match="there are llama-3.2-11b-vision, llama-3.2-11b-vision-i"):
        family.config("llama-3.2-11b")
    with pytest.raises(ValueError, match="there are llama-4-scout-17b-16e, llama-4-scout-17b-16e-"):
        family.config("llama-4-scout")


# --- the models that see --------------------------------------------------------------------------

ENCODER = {448: 836_288_019, 560: 863_567_379}
BY_SIZE = {  # total with tiles of 560 pixels, projector, cross-attention, image embeddings, text
    "11b": (10_670_220_835, 31_461_376, 1_744_898_064, 8 * 4096, 8_030_261_248),
    "90b": (88_593_355_323, 62_922_752, 17_113_093_160, 8 * 8192, 70_553_706_496)}
VISION = {"llama-3.2-11b-vision": 448, "llama-3.2-11b-vision-instruct": 560,
          "llama-3.2-90b-vision": 560, "llama-3.2-90b-vision-instruct": 560}


@pytest.mark.parametrize("name", VISION)
def test_the_models_that_see_have_their_parameters_to_the_last_digit_part_by_part(name):
    config, tile_px = family.config(name), VISION[name]
    assert config.vision.tile_px == tile_px
    total, projector, cross, image_rows, text = BY_SIZE[name.split("-")[2]]
    counts = config.param_counts
    assert counts.pop("encoder") == ENCODER[tile_px]
    assert counts.pop("projector") == projector and counts.pop("cross-attention") == cross
    assert counts.pop("image embeddings") == image_rows and sum(counts.values()) == text
    assert config.n_params == total - ENCODER[560] + ENCODER[tile_px]
    assert config.n_params == (10_642_941_475 if tile_px == 448 else total)


def test_the_models_that_see_are_the_text_models_of_llama_3_1_with_an_adapter():
    assert set(family.VISION) == set(VISION)
    for name, row in family.VISION.items():
        text = "llama-3.1-8b" if "11b" in name else "llama-3.1-70b"
        assert row.config.text == family.config(text)
        assert row.config.image_id == 128_256 and row.config.n_ids == 128_264
        every_fourth = list(range(3, row.config.n_layers, 4))
        assert list(row.config.cross_layers) == every_fourth
        assert len(every_fourth) == (8 if "11b" in name else 20)
        assert row.license is family.LICENSES["llama-3.2"] and "European" in row.license.allows
        assert row.generation == family.VISION_GENERATION not in family.GENERATIONS


def test_the_tiny_twin_that_sees_keeps_what_makes_the_generation():
    twin, real = family.tiny("llama-3.2-vision"), family.config("llama-3.2-11b-vision")
    assert family.first_of("llama-3.2-vision") == real
    for field in ("rope_theta", "rope_scaling", "norm_eps", "is_tied", "max_seq_len",
                  "n_image_ids"):
        assert getattr(twin, field) == getattr(real, field)
    for field in ("aspect_ratios", "max_tiles", "norm_eps", "patch_px"):
        assert getattr(twin.vision, field) == getattr(real.vision, field)
    assert twin.text == family.tiny("llama-3.1")
    assert twin.vision.n_tokens % 8, "each tile is padded, as in the released models"
    assert twin.n_params < 500_000 and len(twin.cross_layers) == 2


# --- Llama 4 --------------------------------------------------------------------------------------

LLAMA_4 = {  # total, parameters that work for a token of text
    "scout": (108_641_793_536, 17_172_894_720), "maverick": (401_583_781_376, 17_184_691_200)}
VISION_TOWER, ITS_PROJECTOR = 850_960_896, 4096 * 5120
CONTEXT = {"llama-4-scout-17b-16e": 262_144, "llama-4-scout-17b-16e-instruct": 10_485_760,
           "llama-4-maverick-17b-128e": 262_144, "llama-4-maverick-17b-128e-instruct": 1_048_576}


@pytest.mark.parametrize("name", CONTEXT)
def test_llama_4_has_its_parameters_to_the_last_digit_and_as_many_work_for_a_token(name):
    config, text = family.config(name), family.config(f"{name}-text")
    total, active = LLAMA_4[name.split("-")[2]]
    assert config.n_params == total and text.n_active_params == active
    counts = config.param_counts
    assert counts["encoder"] == VISION_TOWER and counts["projector"] == ITS_PROJECTOR
    assert text.n_params == total - VISION_TOWER - ITS_PROJECTOR and config.text == text


def test_the_facts_about_llama_4_are_the_published_ones():
    assert set(family.FUSION) == set(CONTEXT)
    assert set(family.EXPERTS) == {f"{name}-text" for name in CONTEXT}
    for name, row in family.FUSION.items():
        text, config = family.EXPERTS[f"{name}-text"], row.config
        assert config.max_seq_len == text.config.max_seq_len == CONTEXT[name]
        assert (row.released, row.generation, text.generation) == (
            "2025-04-05", "llama-4-vision", "llama-4")
        assert row.n_tokens == text.n_tokens == (40e12 if "scout" in name else 22e12)
        assert row.license is text.license is family.LICENSES["llama-4"]
        assert "European" in row.license.allows
        assert (config.rope_scaling is None) == ("maverick" in name)
        assert config.vision.n_tokens == 144 and config.image_ids.patch == 200_092
    scaling = family.config("llama-4-scout-17b-16e").rope_scaling
    assert (scaling.factor, scaling.low_freq_factor, scaling.high_freq_factor,
            scaling.original_max_seq_len) == (16, 1, 1, 8192)


def test_only_layers_with_rope_are_chunked_and_normed_and_only_the_others_have_a_temperature():
    for name in ("scout-17b-16e", "maverick-17b-128e"):
        layers = family.config(f"llama-4-{name}-text").layers
        assert [i for i, spec in enumerate(layers) if not spec.has_rope] == list(range(3, 48, 4))
        for spec in layers:
            assert spec.has_rope == (spec.chunk_size == 8192) == (spec.temperature is None)
            assert spec.has_qk_norm == (spec.has_rope and "scout" in name)


def test_the_twins_of_llama_4_keep_what_makes_the_generation():
    twin, real = family.tiny("llama-4"), family.config("llama-4-scout-17b-16e-text")
    assert family.first_of("llama-4") == real and family.TEXT_GENERATIONS[-1] == "llama-4"
    assert "llama-4" not in family.GENERATIONS, "chapters with dense layers go through these"
    for field in ("rope_theta", "rope_scaling", "norm_eps", "is_tied", "max_seq_len"):
        assert getattr(twin, field) == getattr(real, field)
    for small, large in zip(twin.layers, real.layers[:4], strict=True):
        assert dataclasses.replace(small, feed_forward=large.feed_forward) == large
        experts = small.feed_forward
        assert (experts.n_experts, experts.n_active, experts.width) == (4, 1, 96)
    assert twin.n_params < 500_000
    whole = family.tiny("llama-4-vision")
    assert whole.text == twin and whole.n_params < 550_000
    assert max(dataclasses.astuple(whole.image_ids)) < whole.vocab_size
    real = family.first_of("llama-4-vision")
    for field in ("max_tiles", "norm_eps", "patch_px", "shuffle", "rope_theta"):
        assert getattr(whole.vision, field) == getattr(real.vision, field)
