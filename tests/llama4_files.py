"""Small models of Llama 4 with a tokenizer, and Meta's files of them, spelled out by hand."""

import copy
import dataclasses
import functools
import io
import json

import torch
from fusion_twin import TILE, grid_images, made_loud
from llama4_twin import loud_llama4, toy
from tiny_checkpoints import TEXT

from llama_from_scratch import family
from llama_from_scratch.config import Experts, ImageIds, RopeScaling
from llama_from_scratch.tokenizer import released
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.chat_format import FORMATS, prompting_for
from llama_from_scratch.vision.early_fusion import fuse_vision
from llama_from_scratch.vision.image_layout import layout

N_RANKS = 264
VOCAB = N_RANKS + len(released.LLAMA_4)
IDS = ImageIds(image_start=N_RANKS + 80, image_end=N_RANKS + 81, image=N_RANKS + 90,
               patch=N_RANKS + 92, tile_x_separator=N_RANKS + 84, tile_y_separator=N_RANKS + 85)
SCALED = RopeScaling(factor=16.0, low_freq_factor=1.0, high_freq_factor=1.0,
                     original_max_seq_len=16)
"""Scout's scaling, of a context so short that a few tokens show it."""


@functools.cache
def trained():
    return Tokenizer.train(TEXT, VOCAB, special_tokens=released.LLAMA_4,
                           pattern=released.LLAMA4_PATTERN)


def tokenizer():
    """A small tokenizer with Llama 4's pattern and special tokens; a copy, because reading a
    checkpoint changes what its tokenizer says about texts.
    """
    made = copy.copy(trained())
    made.prompting = prompting_for(FORMATS["llama-4"], made)
    return made


def small(*, width=24, ffn_dim=40, **toys):
    """A config like `toy`, in which the config says how wide layers without experts are."""
    config = toy(**toys)
    layers = tuple(dataclasses.replace(spec, feed_forward=dataclasses.replace(
        spec.feed_forward, width=width, shared_width=width)
        if isinstance(spec.feed_forward, Experts) else None) for spec in config.layers)
    return dataclasses.replace(config, layers=layers, ffn_dim=ffn_dim, vocab_size=VOCAB)


KINDS = {
    "experts in all layers": small(),
    "experts in every second, top 2, no norm": small(step=2, n_active=2, has_qk_norm=False),
    "scaled": small(rope_scaling=SCALED),
}


def published_layers(generation="llama-4", **changes):
    """A model of the twin: its chunks and temperature are those that llama.cpp has."""
    return loud_llama4(dataclasses.replace(family.tiny(generation), vocab_size=VOCAB, **changes))


def text_model(kind="experts in all layers"):
    return loud_llama4(KINDS[kind]).eval()


def whole_model(kind="experts in all layers", vision=TILE):
    """A model that reads images, in which every part matters."""
    model = fuse_vision(text_model(kind), vision, image_ids=IDS)
    torch.manual_seed(5)
    made_loud(model.vision)
    return model.eval()


def ids_and_images():
    """Ids of one text with an image of 2 x 1 tiles, written out, and its tiles."""
    grids = (((2, 1),),)
    image = layout((2, 1), ids=IDS, n_tokens=TILE.n_tokens)
    return torch.tensor([[5, 6, *image, 7, 8, 9]]), grid_images(grids)


def same_weights(a, b):
    theirs = dict(b.named_parameters())
    return theirs.keys() == dict(a.named_parameters()).keys() and all(
        torch.equal(p, theirs[name]) and p.dtype == theirs[name].dtype
        for name, p in a.named_parameters())


# --- Meta's files, from their description -----------------------------------------------------

MULTIPLE_OF, MULTIPLIER, WIDTH, FFN_DIM = 8, 1.2, 56, 104
"""By Meta's rules for 32 channels: 4 * 32 = 128, 2/3 of it 85, times 1.2 is 102, and the next
multiple of 8 is 104. Half of 102 is 51, and its next multiple 56.
"""


def meta_small(**toys):
    """A config whose widths follow Meta's rules with the numbers above."""
    return small(width=WIDTH, ffn_dim=FFN_DIM, **toys)


def params_by_hand(config, **more):
    """What Meta's params.json says of `meta_small`."""
    has_qk_norm = any(spec.has_qk_norm for spec in config.layers)
    experts = config.layers[-2].feed_forward
    n_with = sum(spec.feed_forward is not None for spec in config.layers)
    return {
        "dim": 32, "n_layers": config.n_layers, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8,
        "vocab_size": VOCAB, "multiple_of": MULTIPLE_OF, "ffn_dim_multiplier": MULTIPLIER,
        "ffn_exp": 4.0, "norm_eps": 1e-5, "attention_chunk_size": 4, "rope_theta": 5e5,
        "use_scaled_rope": False, "nope_layer_interval": 4, "use_qk_norm": has_qk_norm,
        "attn_temperature_tuning": True, "floor_scale": 3.0, "attn_scale": 0.1, "max_seq_len": 64,
        "moe_args": {"num_experts": experts.n_experts, "capacity_factor": 1.0,
                     "auto_scale_F": True, "top_k": experts.n_active,
                     "interleave_moe_layer_step": 1 if n_with == config.n_layers else 2}} | more


VISION_ARGS = {
    "image_size": {"height": 56, "width": 56}, "patch_size": {"height": 14, "width": 14},
    "dim": 16, "n_layers": 2, "n_heads": 2, "mlp_ratio": 4.0, "output_dim": 20,
    "pixel_shuffle_ratio": 0.5}
"""What Meta's params.json says of `TILE`."""


def as_released(folder, model, *, n_shards=1, **more):
    """The same model as Meta's programs would have written it, entry by entry."""
    folder.mkdir()
    w = {name: weight.detach() for name, weight in model.named_parameters()}
    for i in range(n_shards):
        torch.save(dict(_shard(w, model.config, i, n_shards)), folder / f"consolidated.{i:02}.pth")
    if "vision.projector.weight" in w:
        more = {"vision_args": VISION_ARGS} | more
    (folder / "params.json").write_text(json.dumps(params_by_hand(model.config, **more)))
    tokenizer().save(folder / "tokenizer.model")
    return folder


def _shard(w, config, i, n):
    def part(name, axis):
        return w[name].chunk(n, dim=axis)[i].clone()

    yield "tok_embeddings.weight", part("tok_embeddings.weight", 0)
    yield "output.weight", part("output.weight", 0)
    yield "norm.weight", w["norm.weight"].clone()
    yield "rope.freqs", torch.zeros(4)
    yield "freq_cis", torch.zeros(4, dtype=torch.complex64)
    for k, spec in enumerate(config.layers):
        ours, theirs = f"layers.{k}.", f"layers.{k}."
        yield theirs + "attention.wqkv.weight", torch.cat(
            [part(f"{ours}attention.{x}.weight", 0) for x in ("wq", "wk", "wv")])
        yield (theirs + "attention.wqkv.layer_norm_weight",
               w[ours + "attention_norm.weight"].clone())
        yield theirs + "attention.wqkv._extra_state", io.BytesIO(b"state")
        yield theirs + "attention.wo.weight", part(ours + "attention.wo.weight", 1)
        ours, theirs = f"{ours}feed_forward.", f"{theirs}feed_forward."
        norm = w[f"layers.{k}.ffn_norm.weight"].clone()
        if spec.feed_forward is None:
            yield theirs + "mlp.layer_norm_weight", norm
            yield theirs + "mlp.fc1_weight", torch.cat(
                [part(ours + "w_gate.weight", 0), part(ours + "w_up.weight", 0)])
            yield theirs + "mlp.fc2_weight", part(ours + "w_down.weight", 1)
            continue
        yield theirs + "norm.weight", norm
        yield theirs + "router_DE", w[ours + "router.directions.weight"].T.contiguous()
        yield theirs + "global_gate_stats_3E", torch.zeros(3, 4)
        yield theirs + "expert_activation_DE", torch.zeros(32, 4)
        for name, expert, axis in (("moe_w_in_eD_F", "w_gate", 2), ("moe_w_out_eF_D", "w_down", 1),
                                   ("moe_w_swiglu_eD_F", "w_up", 2)):
            stacked = part(f"{ours}experts.{expert}", axis)
            yield f"{theirs}experts.{name}", stacked.reshape(-1, stacked.shape[-1]).clone()
        yield theirs + "w_in_shared_FD.weight", part(ours + "shared.w_gate.weight", 0)
        yield theirs + "w_swiglu_FD.weight", part(ours + "shared.w_up.weight", 0)
        yield theirs + "w_out_shared_DF.weight", part(ours + "shared.w_down.weight", 1)
    if "vision.projector.weight" in w:
        yield from _eyes(w, part)


def _eyes(w, part):
    encoder, theirs = "vision.encoder.", "vision_embeddings.vision_encoder."
    yield theirs + "class_embedding", w[encoder + "class_token"].clone()
    yield theirs + "positional_embedding_vlm", w[encoder + "positions"].clone()
    yield theirs + "conv1._linear.weight", part(encoder + "patch_embedding.linear.weight", 0)
    for ours, name in (("norm_before", "ln_pre"), ("norm_after", "ln_post")):
        for kind in ("weight", "bias"):
            yield f"{theirs}{name}.{kind}", w[f"{encoder}{ours}.{kind}"].clone()
    for k in range(2):
        for ours, name, weight, bias in (
                ("attention.wq", "attn.wq", 0, 0), ("attention.wk", "attn.wk", 0, 0),
                ("attention.wv", "attn.wv", 0, 0), ("attention.wo", "attn.wo", 1, None),
                ("feed_forward.w_up", "mlp.c_fc", 0, 0),
                ("feed_forward.w_down", "mlp.c_proj", 1, None),
                ("attention_norm", "ln_1", None, None), ("ffn_norm", "ln_2", None, None)):
            for kind, axis in (("weight", weight), ("bias", bias)):
                full = f"{encoder}layers.{k}.{ours}.{kind}"
                yield (f"{theirs}transformer.resblocks.{k}.{name}.{kind}",
                       w[full].clone() if axis is None else part(full, axis))
    adapter = "vision_embeddings.vision_adapter.mlp."
    yield adapter + "c_fc.weight", part("vision.adapter.w_in.weight", 0)
    yield adapter + "c_proj.weight", part("vision.adapter.w_out.weight", 1)
    yield "vision_projection.weight", part("vision.projector.weight", 0)
