"""Small models of Llama 4 that see, and the same models in transformers: the reference."""

import torch
import transformers
from llama4_twin import loud_llama4, text_config_of, text_weights_of, toy
from transformers.models.llama4.modeling_llama4 import Llama4MultiModalProjector, Llama4VisionModel

from llama_from_scratch.config import ImageIds, TileEncoderConfig
from llama_from_scratch.vision.early_fusion import fuse_vision
from llama_from_scratch.vision.fusion_encoder import TileModel
from llama_from_scratch.vision.fusion_tiles import GridImages
from llama_from_scratch.vision.image_layout import n_tiles

TILE = TileEncoderConfig(dim=16, n_heads=2, ffn_dim=64, n_layers=2, tile_px=56, patch_px=14,
                         max_tiles=16, adapter_dim=20, output_dim=32, norm_eps=1e-5)

LLAMA_4 = TileEncoderConfig(
    dim=1408, n_heads=16, ffn_dim=5632, n_layers=34, tile_px=336, patch_px=14, max_tiles=16,
    adapter_dim=4096, output_dim=5120, norm_eps=1e-5)

IDS = ImageIds(image_start=81, image_end=82, image=83, patch=80, tile_x_separator=84,
               tile_y_separator=85)

OF_BLOCK = {
    "attention_norm": "input_layernorm", "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj", "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "feed_forward.w_up": "mlp.fc1", "feed_forward.w_down": "mlp.fc2",
}

ONCE = {
    "encoder.class_token": "vision_model.class_embedding",
    "encoder.positions": "vision_model.positional_embedding_vlm",
    "encoder.patch_embedding.linear.weight": "vision_model.patch_embedding.linear.weight",
    "encoder.norm_before.weight": "vision_model.layernorm_pre.weight",
    "encoder.norm_before.bias": "vision_model.layernorm_pre.bias",
    "encoder.norm_after.weight": "vision_model.layernorm_post.weight",
    "encoder.norm_after.bias": "vision_model.layernorm_post.bias",
    "adapter.w_in.weight": "vision_model.vision_adapter.mlp.fc1.weight",
    "adapter.w_out.weight": "vision_model.vision_adapter.mlp.fc2.weight",
    "projector.weight": "multi_modal_projector.linear_1.weight",
}


def hugging_face_name(name):
    """The published name of a parameter of our encoder. Raises KeyError if it has no row."""
    if name.startswith("encoder.layers."):
        number, rest = name.removeprefix("encoder.layers.").split(".", 1)
        part, kind = rest.rsplit(".", 1)
        return f"vision_model.model.layers.{number}.{OF_BLOCK[part]}.{kind}"
    return ONCE[name]


def made_loud(model):
    """The same model with weights that make every part matter to the result."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                weight.normal_(1.0, 0.3)
            elif weight.ndim == 2 and "positions" not in name:
                weight.normal_(std=1.5 * weight.shape[1] ** -0.5)
            else:
                weight.normal_(std=0.5)
    return model


def loud_tiles(config=TILE, *, seed=0):
    torch.manual_seed(seed)
    return made_loud(TileModel(config)).eval()


def their_vision_config(config):
    assert config.ffn_dim == config.dim * config.shuffle**2, "one number in transformers"
    return transformers.Llama4VisionConfig(
        hidden_size=config.dim, num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads, intermediate_size=config.ffn_dim,
        image_size=config.tile_px, patch_size=config.patch_px,
        pixel_shuffle_ratio=1 / config.shuffle, projector_input_dim=config.adapter_dim,
        projector_output_dim=config.adapter_dim, vision_output_dim=config.adapter_dim,
        rope_theta=config.rope_theta, attn_implementation="eager")


class TileTwin(torch.nn.Module):
    """transformers' encoder and projector with our weights, called as ours is."""

    def __init__(self, model):
        super().__init__()
        vision = their_vision_config(model.config)
        text = text_config_of(toy(dim=model.config.output_dim))
        both = transformers.Llama4Config(vision_config=vision, text_config=text)
        both._attn_implementation = vision._attn_implementation = "eager"
        self.vision_model = Llama4VisionModel(vision)
        self.multi_modal_projector = Llama4MultiModalProjector(both)
        state = {hugging_face_name(name): w for name, w in model.named_parameters()}
        self.load_state_dict(state, strict=True)
        self.eval()

    def forward(self, pixels):
        return self.multi_modal_projector(self.vision_model(pixels).last_hidden_state)


def loud_fusion(text=None, vision=TILE, *, seed=0):
    """A model that sees, in which every part matters. `text`: a config, by default `toy()`."""
    model = fuse_vision(loud_llama4(toy() if text is None else text), vision, image_ids=IDS)
    torch.manual_seed(seed)
    made_loud(model.vision)
    return model.eval()


def grid_images(grids, *, seed=1, px=TILE.tile_px):
    """Random tiles of images with these grids, a tuple for each row."""
    made = torch.Generator().manual_seed(seed)
    n = sum(n_tiles(grid) for row in grids for grid in row)
    return GridImages(pixels=torch.randn(n, 3, px, px, generator=made), grids=grids)


def their_name(name):
    """The published name of a parameter of our encoder, or of our text model."""
    if name.startswith("vision."):
        return hugging_face_name(name.removeprefix("vision."))
    raise KeyError(name)


def their_weights(model, of=lambda weight: weight.detach()):
    """Our weights under transformers' names. `of`: what to take of each weight."""
    state = {their_name(f"vision.{name}"): of(weight)
             for name, weight in model.vision.named_parameters()}
    text = text_weights_of(model.text_model(), of)
    return state | {f"language_model.{name}": weight for name, weight in text.items()}


def fusion_twin_of(model):
    """The same model in transformers, called with ids that are written out and pixels."""
    vision, text = their_vision_config(model.config.vision), text_config_of(model.config.text)
    ids = model.config.image_ids
    both = transformers.Llama4Config(vision_config=vision, text_config=text,
                                     image_token_index=ids.patch, boi_token_index=ids.image_start,
                                     eoi_token_index=ids.image_end)
    both._attn_implementation = "eager"
    twin = transformers.Llama4ForConditionalGeneration(both).eval()
    twin.load_state_dict(their_weights(model), strict=True)
    # In 5.24 the whole model asks its text model for a field that only vision models have.
    twin.language_model.register_forward_hook(
        lambda _, args, out: setattr(out, "image_outputs", None))
    return twin


def theirs(twin, ids, images=None, **more):
    """The logits of transformers' model."""
    pixels = None if images is None else images.pixels
    return twin(input_ids=ids, pixel_values=pixels, use_cache=False, **more).logits
