"""The names and shapes of a Llama 4, compared with transformers' own model and a written list."""

import pytest
import torch
import transformers
from fusion_twin import hugging_face_name
from llama4_files import VOCAB, text_model, whole_model
from llama4_twin import text_weights_of

from llama_from_scratch import family
from llama_from_scratch.checkpoint import hugging_face_fusion
from llama_from_scratch.checkpoint.names import GGUF, HUGGING_FACE, META
from llama_from_scratch.checkpoint.translation import to_theirs, translation


@pytest.mark.parametrize("name", ["llama-4-scout-17b-16e", "llama-4-maverick-17b-128e"])
def test_the_published_names_and_shapes_are_those_of_transformers(name):
    config = family.config(name)
    about = hugging_face_fusion.config_to(config, dtype=torch.bfloat16, text_ids={})
    with torch.device("meta"):
        twin = transformers.Llama4ForConditionalGeneration(transformers.Llama4Config(**about))
    wanted = {name: tuple(weight.shape) for name, weight in twin.state_dict().items()}
    assert translation(HUGGING_FACE, config).theirs == wanted
    assert sum(torch.Size(shape).numel() for shape in wanted.values()) == config.n_params


def test_metas_names_of_a_layer_are_the_released_ones():
    theirs = translation(META, family.config("llama-4-maverick-17b-128e")).theirs
    dense = {name.removeprefix("layers.0."): shape for name, shape in theirs.items()
             if name.startswith("layers.0.")}
    assert dense == {
        "attention.wqkv.layer_norm_weight": (5120,), "attention.wqkv.weight": (7168, 5120),
        "attention.wo.weight": (5120, 5120), "feed_forward.mlp.layer_norm_weight": (5120,),
        "feed_forward.mlp.fc1_weight": (32768, 5120), "feed_forward.mlp.fc2_weight": (5120, 16384)}
    experts = {name.removeprefix("layers.1.feed_forward."): shape
               for name, shape in theirs.items() if name.startswith("layers.1.feed_forward.")}
    assert experts == {
        "norm.weight": (5120,), "router_DE": (5120, 128),
        "experts.moe_w_in_eD_F": (128 * 5120, 8192),
        "experts.moe_w_swiglu_eD_F": (128 * 5120, 8192),
        "experts.moe_w_out_eF_D": (128 * 8192, 5120), "w_in_shared_FD.weight": (8192, 5120),
        "w_swiglu_FD.weight": (8192, 5120), "w_out_shared_DF.weight": (5120, 8192)}
    assert theirs["vision_embeddings.vision_encoder.conv1._linear.weight"] == (1408, 588)
    assert theirs["vision_embeddings.vision_adapter.mlp.c_fc.weight"] == (4096, 5632)
    assert theirs["vision_projection.weight"] == (5120, 4096)


def test_no_row_is_reordered_and_gate_comes_before_up():
    model = text_model("experts in every second, top 2, no norm")
    how, weights = translation(HUGGING_FACE, model.config), dict(model.named_parameters())
    wanted = text_weights_of(model)
    assert how.theirs.keys() == wanted.keys()
    assert all(torch.equal(to_theirs(how, weights, name), wanted[name]) for name in wanted)


def test_the_parts_of_a_whole_model_are_named_apart():
    model = whole_model()
    how = translation(HUGGING_FACE, model.config)
    assert how.theirs["language_model.lm_head.weight"] == (VOCAB, 32)
    ours = {name.removeprefix("vision.") for name in how.ours if name.startswith("vision.")}
    theirs = {name for name in how.theirs if not name.startswith("language_model.")}
    assert theirs == {hugging_face_name(name) for name in ours}


def test_gguf_has_no_name_for_the_encoder():
    with pytest.raises(ValueError, match="GGUF has no names for a model that sees images"):
        translation(GGUF, whole_model().config)
