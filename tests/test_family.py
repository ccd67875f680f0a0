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
    assert set(family.LICENSES) == {*family.GENERATIONS, "llama-4"}
    for row in family.FAMILY.values():
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


def test_names_that_are_published_and_not_built_here_are_refused_as_that():
    with pytest.raises(ValueError, match="'llama-4-scout' is a Llama 4, with experts, which this"):
        family.config("llama-4-scout")


def test_the_beginning_of_a_name_is_refused_with_the_names_that_begin_with_it():
    with pytest.raises(ValueError, match="there are llama-3.2-11b-vision, llama-3.2-11b-vision-i"):
        family.config("llama-3.2-11b")


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
