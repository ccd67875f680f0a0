"""Models that see in Meta's layout, compared with files spelled out by hand."""

import dataclasses
import json
import re
import shutil

import pytest
import torch
from meta_release import edit, edit_params
from seeing_checkpoints import CONFIG, logits, seeing, tokenizer
from tiny_checkpoints import TEXT, same_weights
from vision_twin import RATIOS

from llama_from_scratch import family
from llama_from_scratch.checkpoint import hugging_face, load, meta
from llama_from_scratch.checkpoint.meta_params import params_of
from llama_from_scratch.checkpoint.meta_vision import blocks_of, config_from, is_seeing
from llama_from_scratch.checkpoint.names import META
from llama_from_scratch.checkpoint.translation import translation
from llama_from_scratch.tokenizer import released as released_tokens
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.vision.tiles import Tiling

# As the specification lists it: our name -> Meta's, and the axis that shards divide.
FEED_FORWARD = {"w_gate": "w1", "w_up": "w3", "w_down": "w2"}
OF_CROSS = {"attention_gate.weight": "gate_attn", "ffn_gate.weight": "gate_ffwd"}
OF_VISION_BLOCK = {
    "attention_norm": "ln_1", "ffn_norm": "ln_2", "attention.": "attn.",
    "feed_forward.w_up": "mlp.c_fc", "feed_forward.w_down": "mlp.c_proj",
    "attention_gate.weight": "gate_attn", "ffn_gate.weight": "gate_ffn"}
OF_VISION = {
    "encoder.class_token": "class_embedding",
    "encoder.patch_embedding.linear.weight": "conv1._linear.weight",
    "encoder.tiles_before.table.weight": "pre_tile_pos_embed.embedding",
    "encoder.tiles_before.gate.weight": "pre_tile_pos_embed.gate",
    "encoder.positions.in_tile": "positional_embedding",
    "encoder.positions.in_canvas.weight": "gated_positional_embedding",
    "encoder.positions.gate.weight": "gated_positional_embedding_gate",
    "encoder.tiles_after.table.weight": "post_tile_pos_embed.embedding",
    "encoder.tiles_after.gate.weight": "post_tile_pos_embed.gate",
    "encoder.norm_before.": "ln_pre.", "encoder.norm_after.": "ln_post."}
DIVIDED_0 = ("wq.weight", "wk.weight", "wv.weight", "w1.weight", "w3.weight", "output.weight",
             "tok_embeddings.weight", "learnable_embedding.weight", "_linear.weight",
             "c_fc.weight", "c_fc.bias", "vision_projection.weight", "vision_projection.bias")
DIVIDED_1 = ("wo.weight", "w2.weight", "c_proj.weight")


def meta_name(name):
    """Meta's name of one of our parameters, by hand."""
    if name == "image_embeddings.weight":
        return "text_model.learnable_embedding.weight"
    if not name.startswith("vision."):
        for ours, theirs in FEED_FORWARD.items():
            name = name.replace(ours, theirs)
        if ".cross." not in name:
            return f"text_model.{name}"
        _, i, rest = name.split(".", 2)
        rest = rest.removeprefix("cross.")
        return (f"text_model.cross_attention_layers.{CONFIG.cross_layers.index(int(i))}."
                f"{OF_CROSS.get(rest, rest)}")
    name = name.removeprefix("vision.")
    if name.startswith("projector."):
        return f"vision_model.vision_projection.{name.removeprefix('projector.')}"
    if found := re.match(r"encoder\.(local|global)_layers\.(\d+)\.(.*)", name):
        kind, i, rest = found.groups()
        for ours, theirs in sorted(OF_VISION_BLOCK.items(), key=lambda row: -len(row[0])):
            if rest.startswith(ours):
                rest = theirs + rest.removeprefix(ours)
                break
        where = "transformer" if kind == "local" else "global_transformer"
        return f"vision_model.vision_encoder.{where}.resblocks.{i}.{rest}"
    for ours, theirs in OF_VISION.items():
        if name.startswith(ours):
            return f"vision_model.vision_encoder.{theirs}{name.removeprefix(ours)}"
    raise KeyError(name)


def grid_of(rows, n):
    """The one grid of rows whose canvases agree, entry by entry."""
    by_tile = rows.view(9, 4, n, -1)
    grid = torch.zeros(4, 4, n, by_tile.shape[-1], dtype=rows.dtype)
    for number, (height, width) in enumerate(RATIOS, start=1):
        for row in range(height):
            for column in range(width):
                grid[row, column] = by_tile[number, row * width + column]
    return grid


def as_released(folder, model, *, n_shards=1, is_nested=False):
    """The same model as Meta's programs would have written it, spelled out by hand."""
    folder.mkdir()
    whole = {}
    for name, weight in model.named_parameters():
        theirs = meta_name(name)
        if theirs.endswith("_embed.embedding"):
            weight = grid_of(weight, 1)
        elif theirs.endswith("gated_positional_embedding"):
            weight = grid_of(weight, CONFIG.vision.n_tokens)
        elif "gate_attn" in theirs or "gate_ffwd" in theirs:
            weight = weight.expand(64)  # as often as there are channels
        whole[theirs] = weight.detach()
    for i in range(n_shards):
        shard = {}
        for name, weight in whole.items():
            axis = 0 if name.endswith(DIVIDED_0) else 1 if name.endswith(DIVIDED_1) else None
            part = weight if axis is None else weight.chunk(n_shards, dim=axis)[i]
            shard[name] = part.clone().contiguous()
        file = "consolidated.pth" if n_shards == 1 else f"consolidated.{i:02}.pth"
        torch.save(shard, folder / file)
    params = {"dim": 64, "ffn_dim_multiplier": None, "multiple_of": 32, "n_heads": 4,
              "n_kv_heads": 2, "n_layers": 4, "norm_eps": 1e-5, "rope_theta": 500000.0,
              "use_scaled_rope": True, "vision_chunk_size": 28, "vision_max_num_chunks": 4,
              "vision_num_cross_attention_layers": 2, "vocab_size": CONFIG.vocab_size,
              "vision_encoder": {"dim": 32, "n_heads": 2, "ffn_dim": 64, "n_local_layers": 4,
                                 "n_global_layers": 2, "intermediate_layers": [1, 3],
                                 "patch_px": 14}}
    (folder / "params.json").write_text(json.dumps({"model": params} if is_nested else params))
    tokenizer().save(folder / "tokenizer.model")
    return folder


@pytest.fixture(scope="module")
def model():
    return seeing()


@pytest.fixture(scope="module")
def released(model, tmp_path_factory):
    return as_released(tmp_path_factory.mktemp("meta") / "it", model, n_shards=2)


@pytest.fixture
def folder(released, tmp_path):
    shutil.copytree(released, tmp_path / "copy")
    return tmp_path / "copy"


# --- there and back -------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_shards", "is_nested"), [(1, True), (2, False)])
def test_a_released_folder_is_read(n_shards, is_nested, model, tmp_path):
    folder = as_released(tmp_path / "it", model, n_shards=n_shards, is_nested=is_nested)
    found, its_tokenizer = load(folder)
    assert found.config == model.config and same_weights(found, model)
    assert torch.equal(logits(found), logits(model))
    assert found.tiling == Tiling(size_px=28, max_tiles=4)
    assert its_tokenizer.special_ids["<|image|>"] == CONFIG.image_id


@pytest.mark.parametrize("n_shards", [1, 2])
def test_what_is_written_is_what_the_released_programs_would_write(n_shards, model, tmp_path):
    ours, theirs = tmp_path / "ours", as_released(tmp_path / "it", model, n_shards=n_shards)
    meta.write(ours, model, tokenizer=tokenizer(), n_shards=n_shards)
    if n_shards == 1:
        (theirs / "consolidated.pth").rename(theirs / "consolidated.00.pth")
    for i in range(n_shards):
        mine, wanted = (torch.load(each / f"consolidated.{i:02}.pth", weights_only=True)
                        for each in (ours, theirs))
        assert mine.keys() == wanted.keys()
        assert all(torch.equal(tensor.expand_as(wanted[name]), wanted[name])
                   for name, tensor in mine.items())
    assert same_weights(load(ours)[0], model)


def test_more_shards_than_key_value_heads_repeat_them_in_cross_attention_too(tmp_path):
    vision = dataclasses.replace(CONFIG.vision, n_heads=4)
    model = seeing(dataclasses.replace(CONFIG, vision=vision))
    meta.write(tmp_path / "it", model, tokenizer=tokenizer(), n_shards=4)
    shards = [torch.load(tmp_path / "it" / f"consolidated.0{i}.pth") for i in range(4)]
    keys = "text_model.cross_attention_layers.0.attention.wk.weight"
    assert torch.equal(shards[0][keys], shards[1][keys])
    assert not torch.equal(shards[1][keys], shards[2][keys])
    assert same_weights(load(tmp_path / "it")[0], model)


def test_both_published_layouts_give_the_same_model(model, released, tmp_path):
    hugging_face.write(tmp_path / "hf", model, tokenizer=tokenizer())
    meta.write(tmp_path / "back", load(tmp_path / "hf")[0], tokenizer=tokenizer(), n_shards=2)
    assert same_weights(load(tmp_path / "back")[0], load(released)[0])


def test_weights_of_another_dtype_are_converted(model, released):
    found, _ = load(released, dtype=torch.bfloat16)
    assert all(torch.equal(mine, weight.bfloat16()) for mine, weight in zip(
        found.parameters(), model.parameters(), strict=True))


def test_the_tensors_of_the_released_layout_have_the_published_sizes():
    shapes = translation(META, family.config("llama-3.2-11b-vision-instruct")).theirs
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 10_629_184_035
    encoder = "vision_model.vision_encoder."
    assert shapes[f"{encoder}gated_positional_embedding"] == (4, 4, 1601, 1280)
    assert shapes[f"{encoder}pre_tile_pos_embed.embedding"] == (4, 4, 1, 1280)
    assert shapes[f"{encoder}conv1._linear.weight"] == (1280, 588)
    assert shapes["text_model.learnable_embedding.weight"] == (8, 4096)
    shapes = translation(META, family.config("llama-3.2-90b-vision")).theirs
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 88_552_318_523


# --- params.json ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", family.VISION)
def test_the_params_of_a_published_model_have_only_published_keys_and_are_read_back(name):
    config = family.config(name)
    params = params_of(config)
    assert params["vision_chunk_size"] == config.vision.tile_px
    assert params["vision_num_cross_attention_layers"] == len(config.cross_layers)
    assert is_seeing(params) and "vision_encoder" not in params and "rope_scaling" not in params
    assert config_from(params, config.text, where="params.json") == config


def test_blocks_are_before_every_kth_layer_counted_from_the_last():
    assert blocks_of(32, 8) == tuple(range(3, 32, 4)) and blocks_of(80, 20) == tuple(
        range(3, 80, 4))
    assert blocks_of(4, 2) == (1, 3) and blocks_of(5, 2) == (1, 4) and blocks_of(3, 2) == (0, 2)


def test_numbers_that_switch_vision_off_belong_to_a_text_model():
    params = params_of(family.config("llama-3.1-8b"))
    assert not is_seeing(params | {"vision_chunk_size": -1, "vision_max_num_chunks": 4,
                                   "vision_num_cross_attention_layers": -1})


@pytest.mark.parametrize(("changes", "message"), [
    ({"vision_chunk_size": "remove"}, "needs vision_chunk_size, an int above 0"),
    ({"vision_max_num_chunks": 10**6}, "vision_max_num_chunks, an int above 0 and below 64"),
    ({"vision_num_cross_attention_layers": True}, "needs vision_num_cross_attention_layers, an"),
    ({"vision_num_cross_attention_layers": 1}, "cross_attention_layers.1.* is not of this model"),
    ({"vision_encoder": {"dim": 32}}, "vision_encoder must be an object with dim, n_heads"),
    ({"vision_encoder": "remove"}, r"class_embedding is \(32,\), not \(1280,\)"),
    ({"vision_chunk": 4}, "'vision_chunk' is not a key of params.json"),
    ({"vision_chunk_size": 30}, "patch_px must divide tile_px; got tile_px=30"),
    ({"n_layers": 3}, "text_model.layers.3.* is not of this model"),
])
def test_params_of_another_model_are_refused(changes, message, folder):
    edit_params(folder, **changes)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_forged_numbers_of_layers_are_refused_before_they_allocate(folder):
    sizes = json.loads((folder / "params.json").read_text())["vision_encoder"]
    edit_params(folder, vision_encoder=sizes | {"n_global_layers": 10**9})
    with pytest.raises(ValueError, match="n_global_layers of vision_encoder must be an int above"):
        load(folder)


@pytest.mark.parametrize(("changes", "message"), [
    (dict(cross_layers=(0, 3)), r"before the layers \(1, 3\) of 4; got cross_layers=\(0, 3\)"),
    (dict(image_id=CONFIG.image_id + 1), "8 ids for images follow the vocabulary, and the first"),
    (dict(n_image_ids=4), "got image_id=520 and n_image_ids=4"),
    (dict(is_tied=True), "a head apart from the embedding in Meta's layout"),
    (dict(vision=dataclasses.replace(CONFIG.vision, norm_eps=1e-6)), "norms with 1e-05"),
])
def test_what_params_cannot_say_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        params_of(dataclasses.replace(CONFIG, **changes))


# --- gates and tables -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(64,), (1, 1, 1), (1,)])
def test_a_gate_may_be_stored_for_each_channel(shape, folder, model):
    name = "text_model.cross_attention_layers.1.gate_ffwd"
    for i in (0, 1):
        edit(folder, lambda t: t.update({name: t[name].flatten()[:1].expand(shape).clone()}), i)
    assert same_weights(load(folder)[0], model)


def test_a_gate_with_several_numbers_is_refused(folder):
    name = "text_model.cross_attention_layers.1.gate_ffwd"
    edit(folder, lambda t: t.update({name: torch.arange(64.0)}))
    with pytest.raises(ValueError, match=r"gate_ffwd is \(64,\), not \(1,\)"):
        load(folder)


def test_tables_on_which_canvases_disagree_are_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(ValueError, match="one grid of places serves all canvases in Meta's lay"):
        meta.write(tmp_path / "it", seeing(has_one_grid=False), tokenizer=tokenizer())
    assert not list(tmp_path.iterdir())


def test_tables_of_another_tile_size_are_fitted(model, tmp_path):
    folder = as_released(tmp_path / "it", model)
    edit_params(folder, vision_chunk_size=42)
    found, _ = load(folder)
    assert found.config.vision.n_patches == 9 and found.tiling.size_px == 42
    encoder, old = found.vision.encoder, model.vision.encoder
    assert torch.equal(encoder.positions.in_tile[0], old.positions.in_tile[0])
    corners = encoder.positions.in_tile[1:].view(3, 3, 32)[::2, ::2].flatten(0, 1)
    torch.testing.assert_close(corners, old.positions.in_tile[1:])
    middle = encoder.positions.in_tile[1:].view(3, 3, 32)[1, 1]
    torch.testing.assert_close(middle, old.positions.in_tile[1:].mean(0))
    assert torch.equal(encoder.tiles_before.table.weight, old.tiles_before.table.weight)
    canvas = encoder.positions.in_canvas.weight.view(9, 4, 10, 32)
    torch.testing.assert_close(
        canvas[1, 0, 1], old.positions.in_canvas.weight.view(9, 4, 5, 32)[1, 0, 1])


@pytest.mark.parametrize(("name", "shape"), [
    ("gated_positional_embedding", (4, 4, 7, 32)), ("gated_positional_embedding", (4, 3, 5, 32)),
    ("pre_tile_pos_embed.embedding", (4, 4, 1, 16)), ("positional_embedding", (7, 32)),
    ("positional_embedding", (5, 16))])
def test_tables_that_cannot_be_fitted_are_refused(name, shape, folder):
    name = f"vision_model.vision_encoder.{name}"
    edit(folder, lambda t: t.update({name: torch.zeros(shape)}))
    with pytest.raises(ValueError, match=re.escape(f"{name} is {shape}, not ")):
        load(folder)


def test_a_table_that_is_not_permuted_is_another_model(folder, model):
    name = "vision_model.vision_encoder.gated_positional_embedding"
    for i in (0, 1):
        edit(folder, lambda t: t.update({name: t[name].transpose(0, 1).contiguous()}), i)
    assert not torch.allclose(logits(load(folder)[0]), logits(model), rtol=1e-3)


def test_other_colors_and_divided_heads_are_refused(model, tmp_path):
    model = seeing()
    model.tiling = dataclasses.replace(model.tiling, mean=(0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="Meta's code fixes how colors are normalized"):
        meta.write(tmp_path / "it", model, tokenizer=tokenizer())
    model.tiling = Tiling(size_px=28)
    with pytest.raises(ValueError, match="encoder's heads, so n_shards must divide 2; got 4"):
        meta.write(tmp_path / "it", model, tokenizer=tokenizer(), n_shards=4)


def test_a_tokenizer_with_other_ranks_is_refused(folder):
    names = released_tokens.SPECIAL_TOKENS["llama-3.2-vision"]
    Tokenizer.train(TEXT, 515, special_tokens=names).save(folder / "tokenizer.model")
    with pytest.raises(ValueError, match="521 rows, and 257 of them are for the special tokens of "
                                         "llama-3.2-vision, so tokenizer.model must have 264"):
        load(folder)
