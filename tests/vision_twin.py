"""The same vision encoder and projector in transformers, with our weights copied: the reference."""

import functools

import torch
import transformers

from llama_from_scratch.config import VisionConfig
from llama_from_scratch.vision.encoder import VisionModel

RATIOS = ((1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1))
"""The canvases of the released models, in the order of their ids."""

SMALL = VisionConfig(
    dim=24, n_heads=3, ffn_dim=40, n_local_layers=5, n_global_layers=2,
    intermediate_layers=(1, 2, 4), tile_px=12, patch_px=4, max_tiles=4, aspect_ratios=RATIOS,
    norm_eps=1e-5, output_dim=20)

LLAMA_3_2_11B = VisionConfig(
    dim=1280, n_heads=16, ffn_dim=5120, n_local_layers=32, n_global_layers=8,
    intermediate_layers=(3, 7, 15, 23, 30), tile_px=560, patch_px=14, max_tiles=4,
    aspect_ratios=RATIOS, norm_eps=1e-5, output_dim=4096)

OF_BLOCK = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention_norm.bias": "input_layernorm.bias",
    "attention.wq.weight": "self_attn.q_proj.weight",
    "attention.wk.weight": "self_attn.k_proj.weight",
    "attention.wv.weight": "self_attn.v_proj.weight",
    "attention.wo.weight": "self_attn.o_proj.weight",
    "attention_gate.weight": "gate_attn",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_norm.bias": "post_attention_layernorm.bias",
    "feed_forward.w_up.weight": "mlp.fc1.weight",
    "feed_forward.w_up.bias": "mlp.fc1.bias",
    "feed_forward.w_down.weight": "mlp.fc2.weight",
    "feed_forward.w_down.bias": "mlp.fc2.bias",
    "ffn_gate.weight": "gate_ffn",
}

ONCE = {
    "encoder.class_token": "vision_model.class_embedding",
    "encoder.patch_embedding.linear.weight": "vision_model.patch_embedding.weight",
    "encoder.tiles_before.table.weight":
        "vision_model.pre_tile_positional_embedding.embedding.weight",
    "encoder.tiles_before.gate.weight": "vision_model.pre_tile_positional_embedding.gate",
    "encoder.positions.in_tile": "vision_model.gated_positional_embedding.embedding",
    "encoder.positions.in_canvas.weight":
        "vision_model.gated_positional_embedding.tile_embedding.weight",
    "encoder.positions.gate.weight": "vision_model.gated_positional_embedding.gate",
    "encoder.norm_before.weight": "vision_model.layernorm_pre.weight",
    "encoder.norm_before.bias": "vision_model.layernorm_pre.bias",
    "encoder.norm_after.weight": "vision_model.layernorm_post.weight",
    "encoder.norm_after.bias": "vision_model.layernorm_post.bias",
    "encoder.tiles_after.table.weight":
        "vision_model.post_tile_positional_embedding.embedding.weight",
    "encoder.tiles_after.gate.weight": "vision_model.post_tile_positional_embedding.gate",
    "projector.weight": "multi_modal_projector.weight",
    "projector.bias": "multi_modal_projector.bias",
}


def hugging_face_name(name):
    """The published name of one of our parameters. Raises KeyError for a name without a row."""
    for ours, theirs in (("encoder.local_layers.", "vision_model.transformer.layers."),
                         ("encoder.global_layers.", "vision_model.global_transformer.layers.")):
        if name.startswith(ours):
            number, _, rest = name.removeprefix(ours).partition(".")
            return f"{theirs}{number}.{OF_BLOCK[rest]}"
    return ONCE[name]


def loud_vision(config=SMALL):
    """A model in which every part matters to the result, and every gate is away from 0."""
    torch.manual_seed(0)
    model = VisionModel(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "gate" in name:
                weight.uniform_(0.3, 0.9)
                weight.mul_(-1 if "attention" in name else 1)
            elif "norm" in name and name.endswith("weight"):
                weight.normal_(1.0, 0.3)
            elif weight.ndim == 2 and ("layers" in name or "linear" in name or "proj" in name):
                weight.normal_(std=weight.shape[1] ** -0.5)
            else:
                weight.normal_(std=0.5)
    return model


def their_config(config):
    """transformers' config of our encoder. It takes the state that leaves a layer, so each of its
    numbers is one less than ours.
    """
    return transformers.models.mllama.MllamaVisionConfig(
        hidden_size=config.dim, attention_heads=config.n_heads, intermediate_size=config.ffn_dim,
        num_hidden_layers=config.n_local_layers, num_global_layers=config.n_global_layers,
        image_size=config.tile_px, patch_size=config.patch_px, max_num_tiles=config.max_tiles,
        supported_aspect_ratios=[list(ratio) for ratio in config.aspect_ratios],
        intermediate_layers_indices=[layer - 1 for layer in config.intermediate_layers],
        vision_output_dim=config.n_features, norm_eps=config.norm_eps,
        attn_implementation="eager")


def twin_of(model):
    """The same model in transformers, built from our config and weights."""
    config = model.config
    vision = their_config(config)
    text = transformers.models.mllama.MllamaTextConfig(
        hidden_size=config.output_dim, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=8, vocab_size=16, cross_attention_layers=[1],
        pad_token_id=0, rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    both = transformers.MllamaConfig(vision_config=vision, text_config=text, image_token_index=15)
    both._attn_implementation = "eager"
    twin = transformers.MllamaForConditionalGeneration(both).model
    theirs = dict(twin.named_parameters())
    state = {hugging_face_name(name): weight for name, weight in model.named_parameters()}
    missing = {name for name in theirs if not name.startswith("language_model.")} ^ state.keys()
    assert not missing, missing
    with torch.no_grad():
        for name, weight in state.items():
            theirs[name].copy_(weight.reshape(theirs[name].shape))
    return Twin(twin)


class Twin:
    """Called as our model is called; the tile mask that it needs follows from the ids."""

    def __init__(self, model):
        self.model = model
        self.n_tiles = (1, *(rows * columns for rows, columns in
                             model.vision_model.config.supported_aspect_ratios))

    def encode(self, pixels, ids):
        mask = torch.zeros(len(ids), 1, pixels.shape[1], dtype=torch.long)
        for row, number in enumerate(ids.tolist()):
            mask[row, 0, :self.n_tiles[number]] = 1
        return self.model.vision_model(
            pixel_values=pixels[:, None], aspect_ratio_ids=ids[:, None],
            aspect_ratio_mask=mask).last_hidden_state[:, 0]

    def __call__(self, pixels, ids):
        return self.model.multi_modal_projector(self.encode(pixels, ids))

    def gradient(self, name, shape):
        """The gradient of the parameter that is called `name` in our model, in our shape."""
        return dict(self.model.named_parameters())[hugging_face_name(name)].grad.reshape(shape)


@functools.cache
def images(config=SMALL, ids=(1, 2, 3, 4, 5, 6, 7, 8, 0, 6)):
    """Random images of each aspect ratio; their unused tiles are zero, and so is image 0."""
    made = torch.Generator().manual_seed(1)
    pixels = torch.randn(len(ids), config.max_tiles, 3, config.tile_px, config.tile_px,
                         generator=made)
    for row, number in enumerate(ids):
        pixels[row, config.n_tiles[number] if number else 0:] = 0
    return pixels, torch.tensor(ids)
