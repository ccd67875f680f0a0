"""Small models that see, every gate open, and the same models in transformers: the reference."""

import dataclasses

import torch
import transformers
from vision_twin import SMALL, hugging_face_name, their_config

from llama_from_scratch.checkpoint.translation import to_halves
from llama_from_scratch.config import LayerSpec, LlamaConfig
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.vision.adapter import VisionLlama, attach
from llama_from_scratch.vision.cross_attention import SeeingBlock
from llama_from_scratch.vision.encoder import Gate
from llama_from_scratch.vision.tiles import TiledImages

IMAGE = 50
"""The id that stands for an image in the small models."""

TEXT = LlamaConfig(dim=32, n_heads=4, n_kv_heads=2, ffn_dim=48, vocab_size=IMAGE, max_seq_len=64,
                   norm_eps=1e-5, rope_theta=1e4, layers=(LayerSpec(),) * 5)
VISION = dataclasses.replace(SMALL, output_dim=TEXT.dim)

OF_CROSS = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.wq.weight": "cross_attn.q_proj.weight",
    "attention.wk.weight": "cross_attn.k_proj.weight",
    "attention.wv.weight": "cross_attn.v_proj.weight",
    "attention.wo.weight": "cross_attn.o_proj.weight",
    "attention.q_norm.weight": "cross_attn.q_norm.weight",
    "attention.k_norm.weight": "cross_attn.k_norm.weight",
    "attention_gate.weight": "cross_attn_attn_gate",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "feed_forward.w_gate.weight": "mlp.gate_proj.weight",
    "feed_forward.w_up.weight": "mlp.up_proj.weight",
    "feed_forward.w_down.weight": "mlp.down_proj.weight",
    "ffn_gate.weight": "cross_attn_mlp_gate",
}
OF_SELF = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.wq.weight": "self_attn.q_proj.weight",
    "attention.wk.weight": "self_attn.k_proj.weight",
    "attention.wv.weight": "self_attn.v_proj.weight",
    "attention.wo.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "feed_forward.w_gate.weight": "mlp.gate_proj.weight",
    "feed_forward.w_up.weight": "mlp.up_proj.weight",
    "feed_forward.w_down.weight": "mlp.down_proj.weight",
}


def loud(text=TEXT, vision=VISION, *, cross_layers=(1, 3), seed=0):
    """A model that sees, in which every part matters and every gate is away from 0."""
    torch.manual_seed(seed)
    model = attach(Llama(text), vision, cross_layers=cross_layers)
    gates = {id(part.weight) for part in model.modules() if isinstance(part, Gate)}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if id(weight) in gates:
                weight.uniform_(0.4, 0.9).mul_(-1 if "ffn" in name else 1)
            elif weight.ndim == 1 and "norm" in name and name.endswith("weight"):
                weight.normal_(1.0, 0.3)
            elif weight.ndim == 2:
                weight.normal_(std=weight.shape[1] ** -0.5)
            else:
                weight.normal_(std=0.5)
    return model.eval()


def pictures(aspect_ids, *, seed=1, config=VISION):
    """Random images with these aspect ids, one list per row; 0 fills up a row."""
    made = torch.Generator().manual_seed(seed)
    ids = torch.tensor(aspect_ids)
    pixels = torch.randn(*ids.shape, config.max_tiles, 3, config.tile_px, config.tile_px,
                         generator=made)
    mask = TiledImages(pixels=pixels, aspect_ids=ids).tile_mask & (ids > 0)[..., None]
    return TiledImages(pixels=pixels * mask[..., None, None, None], aspect_ids=ids)


def row_of(images, row):
    """The images of one row alone, without padding; None if it has none."""
    n = int(images.n_images[row])
    if not n:
        return None
    return TiledImages(pixels=images.pixels[row : row + 1, :n],
                       aspect_ids=images.aspect_ids[row : row + 1, :n])


def hugging_face_layers(config):
    """The numbers in transformers' one list of layers: of the text layers, of the cross blocks."""
    text, cross, number = {}, {}, 0
    for i in range(config.n_layers):
        if i in config.cross_layers:
            cross[i], number = number, number + 1
        text[i], number = number, number + 1
    return text, cross


def twin_of(model: VisionLlama):
    """The same model in transformers, built from our config and weights, with eager attention."""
    config = model.config
    text_at, cross_at = hugging_face_layers(config)
    text = transformers.models.mllama.MllamaTextConfig(
        hidden_size=config.dim, num_hidden_layers=len(text_at) + len(cross_at),
        num_attention_heads=config.n_heads, num_key_value_heads=config.n_kv_heads,
        intermediate_size=config.ffn_dim, vocab_size=config.vocab_size,
        rms_norm_eps=config.norm_eps,
        cross_attention_layers=list(cross_at.values()), pad_token_id=0, eos_token_id=1,
        bos_token_id=2, max_position_embeddings=config.max_seq_len,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta})
    both = transformers.MllamaConfig(vision_config=their_config(config.vision), text_config=text,
                                     image_token_index=config.image_id)
    both._attn_implementation = "eager"
    twin = transformers.MllamaForConditionalGeneration(both).eval()
    parameters, unused = dict(twin.named_parameters()), set(dict(twin.named_parameters()))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            for theirs, value in theirs_of(name, weight, model, text_at, cross_at):
                target = parameters[theirs]
                if theirs == EMBEDDING:
                    first = 0 if name.startswith("tok") else config.vocab_size
                    target = target[first : first + len(value)]
                target.copy_(value.reshape(target.shape))
                unused.discard(theirs)
    assert not unused, unused
    return twin


EMBEDDING = "model.language_model.embed_tokens.weight"


def theirs_of(name, weight, model, text_at, cross_at):
    """Yields (transformers' name, value) for one of our parameters."""
    if name in ("tok_embeddings.weight", "image_embeddings.weight"):
        yield EMBEDDING, weight
    elif name == "norm.weight":
        yield "model.language_model.norm.weight", weight
    elif name == "output.weight":
        yield "lm_head.weight", weight
    elif name.startswith("vision."):
        yield "model." + hugging_face_name(name.removeprefix("vision.")), weight
    else:
        _, i, rest = name.split(".", 2)
        number, table = (cross_at, OF_CROSS) if rest.startswith("cross.") else (text_at, OF_SELF)
        rest = rest.removeprefix("cross.")
        heads = {"attention.wq.weight": model.config.n_heads,
                 "attention.wk.weight": model.config.n_kv_heads}
        if table is OF_SELF and rest in heads:
            weight = to_halves(weight, heads[rest])
        yield f"model.language_model.layers.{number[int(i)]}.{table[rest]}", weight


def tile_mask_of(ids, images, *, image_id=IMAGE):
    """transformers' cross-attention mask (B, T, I, J), by the rule in words, token by token."""
    B, T = ids.shape
    mask = torch.zeros(B, T, *images.pixels.shape[1:3], dtype=torch.long)
    for b in range(B):
        places = [t for t in range(T) if ids[b, t] == image_id]
        for number, place in enumerate(places):
            end = number + 1
            while end < len(places) and places[end] == places[end - 1] + 1:
                end += 1
            last = places[end] if end < len(places) else T
            mask[b, place:last, number, : int(images.n_tiles[b, number])] = 1
    return mask


def theirs(twin, ids, images, *, rule="meta", image_id=IMAGE, **more):
    """The logits of transformers' model.

    By Meta's rule a token that sees no image finds nothing: transformers, which leaves only its
    feed-forward out, gets the missing product put in after `o_proj`, which has no bias.
    """
    mask = tile_mask_of(ids, images, image_id=image_id)
    sees = mask.flatten(2).any(-1, keepdim=True).float()
    hooks = [part.register_forward_hook(lambda _, __, out: (out[0] * sees, *out[1:]))
             for name, part in twin.named_modules()
             if name.endswith("cross_attn") and rule == "meta"]
    try:
        return twin(input_ids=ids, pixel_values=images.pixels, aspect_ratio_ids=images.aspect_ids,
                    aspect_ratio_mask=images.tile_mask.long(), cross_attention_mask=mask,
                    use_cache=False, **more).logits
    finally:
        for hook in hooks:
            hook.remove()


def batch():
    """Ids and images of four rows: adjacent and single images, one, none, and text before."""
    images = pictures([[6, 2, 1], [3, 0, 0], [0, 0, 0], [8, 5, 0]])
    ids = torch.randint(1, IMAGE, (4, 14), generator=torch.Generator().manual_seed(3))
    for row, places in enumerate([[3, 4, 9], [0], [], [5, 11]]):
        ids[row, places] = IMAGE
    return ids, images


def crosses(model):
    """The cross-attention blocks of a model."""
    return [block.cross for block in model.layers if isinstance(block, SeeingBlock)]
