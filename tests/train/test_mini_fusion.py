"""The stored model that reads images as tokens is written and read whole."""

import pytest
import torch
from fusion_twin import IDS, TILE
from llama4_twin import toy

from llama_from_scratch.config import FusionLlamaConfig
from llama_from_scratch.train import mini_fusion


def small():
    torch.manual_seed(0)
    return FusionLlamaConfig.seeing(toy(), vision=TILE, image_ids=IDS).new_model()


def test_what_is_written_is_read_in_float32_and_rounded_to_bfloat16(tmp_path):
    model = small()
    mini_fusion.write(tmp_path, model)
    found = mini_fusion.read(tmp_path)
    assert found.config == model.config
    for name, weight in model.state_dict().items():
        read = found.state_dict()[name]
        assert read.dtype == torch.float32 and torch.equal(read, weight.bfloat16().float()), name


def test_weights_of_another_config_are_refused(tmp_path):
    mini_fusion.write(tmp_path, small())
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"ffn_dim": 64', '"ffn_dim": 32'))
    with pytest.raises(ValueError, match=r"must fit its config; .*make_fusion\.py"):
        mini_fusion.read(tmp_path)


def test_the_stored_model_and_its_results_belong_together():
    model, tokenizer = mini_fusion.trained()
    results = mini_fusion.results()
    assert {"early fusion", "cross-attention", "early fusion, frozen text"} == set(results)
    assert tokenizer.vocab_size - 1 == model.config.vocab_size
    for row in results.values():
        assert set(row["kinds"]) == {"read", "larger", "side", "sum"}
        assert row["blind"] < row["share"] <= 1 and len(row["curve"]) == row["n_steps"] // 50
