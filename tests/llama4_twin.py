"""The same Llama 4 in transformers, with our weights copied: the independent reference."""

import torch
import transformers

from llama_from_scratch.config import Dense, Experts, LayerSpec, LlamaConfig, TemperatureTuning
from llama_from_scratch.model.mask import padding_documents
from llama_from_scratch.model.transformer import Llama

CHUNK, FLOOR = 4, 3


def toy(*, step=1, n_active=1, has_qk_norm=True, n_layers=5, n_experts=4, **fields):
    """A tiny Llama 4: experts in every `step`-th layer, the fourth layer without RoPE and chunks.

    Positions pass the temperature's floor and several chunks after a few tokens.
    """
    layers = []
    for i in range(n_layers):
        has_rope = (i + 1) % 4 != 0
        layers.append(LayerSpec(
            has_rope=has_rope, chunk_size=CHUNK if has_rope else None,
            has_qk_norm=has_rope and has_qk_norm,
            temperature=None if has_rope else TemperatureTuning(floor=FLOOR, strength=0.1),
            feed_forward=Experts(n_experts=n_experts, n_active=n_active, width=24, shared_width=24)
            if (i + 1) % step == 0 else Dense(width=40)))
    return LlamaConfig(**{**dict(
        dim=32, n_heads=4, n_kv_heads=2, ffn_dim=40, vocab_size=90, max_seq_len=64,
        norm_eps=1e-5, rope_theta=5e5, layers=tuple(layers)), **fields})


def loud_llama4(config):
    """A model whose weights are large enough for every part to matter to the logits."""
    torch.manual_seed(0)
    model = Llama(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.normal_(1.0, 0.3)
            else:
                n_inputs = weight.shape[1]
                weight.normal_(std=1.0 / n_inputs ** 0.5)
    return model


def text_config_of(config):
    """transformers' config of the same text model."""
    experts = next(spec.feed_forward for spec in config.layers
                   if isinstance(spec.feed_forward, Experts))
    moe_layers = [i for i, spec in enumerate(config.layers)
                  if isinstance(spec.feed_forward, Experts)]
    tuning = next((spec.temperature for spec in config.layers if spec.temperature), None)
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    if (scaling := config.rope_scaling) is not None:
        rope |= {"rope_type": "llama3", "factor": scaling.factor,
                 "low_freq_factor": scaling.low_freq_factor,
                 "high_freq_factor": scaling.high_freq_factor,
                 "original_max_position_embeddings": scaling.original_max_seq_len}
    return transformers.Llama4TextConfig(
        hidden_size=config.dim, num_hidden_layers=config.n_layers,
        intermediate_size=experts.width, intermediate_size_mlp=config.ffn_dim,
        num_attention_heads=config.n_heads, num_key_value_heads=config.n_kv_heads,
        head_dim=config.head_dim, vocab_size=config.vocab_size,
        max_position_embeddings=config.max_seq_len, rms_norm_eps=config.norm_eps,
        rope_parameters=rope, tie_word_embeddings=False,
        num_experts_per_tok=experts.n_active, num_local_experts=experts.n_experts,
        moe_layers=moe_layers, use_qk_norm=any(spec.has_qk_norm for spec in config.layers),
        no_rope_layers=[int(spec.has_rope) for spec in config.layers],
        attention_chunk_size=next(s.chunk_size for s in config.layers if s.chunk_size),
        attn_temperature_tuning=tuning is not None,
        floor_scale=tuning.floor if tuning else 8192, attn_scale=tuning.strength if tuning else 0.1,
        attn_implementation="eager", pad_token_id=0, bos_token_id=1, eos_token_id=2)


def text_weights_of(model, of=lambda weight: weight.detach()):
    """Our weights under transformers' names. `of`: what to take of each weight."""
    found = {}
    names = {"tok_embeddings": "model.embed_tokens", "layers.": "model.layers.",
             "attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
             "attention.wq": "self_attn.q_proj", "attention.wk": "self_attn.k_proj",
             "attention.wv": "self_attn.v_proj", "attention.wo": "self_attn.o_proj",
             "feed_forward.w_": "feed_forward.", "shared.w_": "shared_expert.",
             "feed_forward.shared": "feed_forward.shared",
             "router.directions": "router", "gate.weight": "gate_proj.weight",
             "up.weight": "up_proj.weight", "down.weight": "down_proj.weight",
             "output": "lm_head"}
    weights = {name: of(weight) for name, weight in model.named_parameters()}
    for name, weight in weights.items():
        if name.endswith("experts.w_up"):
            continue
        if name.endswith("experts.w_gate"):
            up = weights[name.replace("w_gate", "w_up")]
            weight, name = torch.cat([weight, up], -1), name.replace("w_gate", "gate_up_proj")
        name = name.replace("experts.w_down", "experts.down_proj")
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        found["model.norm.weight" if name == "norm.weight" else name] = weight
    return found


def text_twin_of(model):
    """The same text model in transformers."""
    twin = transformers.Llama4ForCausalLM(text_config_of(model.config))
    twin.load_state_dict(text_weights_of(model), strict=True)
    return twin.eval()


def padded(rows):
    """Rows of unequal length as one batch, padded on the left: ids, positions, documents."""
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max())
    ids = torch.stack([torch.cat([row.new_full((width - len(row),), 7), row]) for row in rows])
    positions = (torch.arange(width) - (width - lengths)[:, None]).clamp(min=0)
    return ids, positions, padding_documents(lengths, width=width)


def random_ids(*shape, seed=1, vocab_size=90):
    return torch.randint(3, vocab_size, shape, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def in_pieces(model, ids, *, cache, sizes, positions=None, documents=None):
    """The logits of all ids, read in pieces of these sizes; the last size goes on to the end."""
    found, start = [], 0
    while start < ids.shape[1]:
        stop = start + sizes[min(len(found), len(sizes) - 1)]
        part = [None if x is None else x[:, start:stop] for x in (positions, documents)]
        found.append(model(ids[:, start:stop], positions=part[0], documents=part[1], cache=cache))
        start = stop
    return torch.cat(found, 1)


def assert_near(found, expected, what, *, within=1e-5):
    """Compares relative to the largest expected number, or absolutely if that is below 1."""
    size = max(1.0, expected.detach().abs().max().item())
    difference = (found - expected).detach().abs().max().item() / size
    assert difference <= within, f"{what} differs by {difference:.1e} of its largest number"


def assert_parity(model, twin, ids):
    """Compares logits and the gradient of every weight, for a random gradient of the logits."""
    ours, theirs = model(ids), twin(ids).logits
    assert_near(ours, theirs, "the logits")
    fake = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2)) / ours.shape[1]
    for each, logits in ((model, ours), (twin, theirs)):
        each.zero_grad()
        (logits * fake).sum().backward()
    expected = {name: p.grad for name, p in twin.named_parameters()}
    found = text_weights_of(model, lambda p: p.grad)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0, name
        assert_near(found[name], gradient, f"the gradient of {name}")
