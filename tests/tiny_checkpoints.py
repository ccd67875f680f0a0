"""Tiny models and a tokenizer for the tests of checkpoints, and far positions that show wrong RoPE.
"""

import copy
import dataclasses
import functools
import json

import torch
from hugging_face_twin import loud, twin_of
from safetensors.torch import load_file, save_file

from llama_from_scratch import family
from llama_from_scratch.checkpoint.plain import ffn_dim_of, plain_layers
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer import released
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.chat_format import FORMATS, prompting_for
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece

TEXT = "the cat sat on the mat, the rat sat on the cat. " * 4
VOCAB = 520


@functools.cache
def tokenizer_for(generation):
    """Returns a small tokenizer of the generation's kind with its special tokens, of 520 ids."""
    if generation in ("llama-1", "llama-2"):
        return SentencePiece.train("".join(map(chr, range(33, 255))) + TEXT, VOCAB)
    return Tokenizer.train(TEXT, VOCAB, special_tokens=released.SPECIAL_TOKENS[generation])


def chat_tokenizer_for(generation):
    """Returns the same for a model whose files name a chat format."""
    tokenizer, format = copy.copy(tokenizer_for(generation)), FORMATS[generation]
    tokenizer.prompting = prompting_for(format, tokenizer)
    return tokenizer


TOKENIZER = tokenizer_for("llama-3.1")


def large_tokenizer(vocab_size):
    """Returns a tokenizer of Llama 3.1's kind and number of ids, most of which are never used."""
    tokens = ([bytes([i]) for i in range(256)]
              + [i.to_bytes(3, "big") for i in range(vocab_size - 512)])
    return Tokenizer({token: rank for rank, token in enumerate(tokens)},
                     special_tokens=released.LLAMA_3_1)


def sized(config, *, n_layers=None, ffn_dim=None, **changes):
    """A config with this many plain layers of this width, by default its own, and other changes."""
    layers = plain_layers(config.n_layers if n_layers is None else n_layers,
                          ffn_dim=width_of(config) if ffn_dim is None else ffn_dim)
    return dataclasses.replace(config, **layers | changes)


def width_of(config):
    """The feed-forward width of a config whose layers are plain."""
    return ffn_dim_of(config, rule="a tiny model has plain layers")


def tiny(generation="llama-3.1", **changes):
    """A model of a generation whose every part matters to the logits."""
    return loud(sized(family.tiny(generation), **dict(vocab_size=VOCAB) | changes))


def drawn(seed):
    """A model with the fresh weights of this seed."""
    config = dataclasses.replace(family.tiny("llama-3.1"), vocab_size=VOCAB)
    torch.manual_seed(seed)
    return Llama(config)


def edit_json(file, **changes):
    """Changes keys of the object in a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_safetensors(folder, change, file="model.safetensors"):
    """Changes the tensors of a safetensors file; `change` works on their dict."""
    tensors = load_file(folder / file)
    change(tensors)
    save_file(tensors, folder / file)


def far_logits(model, n_tokens=48):
    """Our logits for tokens spread to the end of the context, which differ if any frequency of RoPE
    does.
    """
    with torch.no_grad():
        return model(ids(n_tokens), positions=far_positions(model.config.max_seq_len, n_tokens))


def ids(n_tokens=48):
    return torch.randint(VOCAB, (1, n_tokens), generator=torch.Generator().manual_seed(1))


def far_positions(max_seq_len, n_tokens=48):
    """From 0 to the last position, ever farther apart: near tokens show fast pairs, far ones slow
    pairs.
    """
    return (torch.linspace(0, 1, n_tokens) ** 2 * (max_seq_len - 1)).long()[None]


def same_weights(a, b):
    theirs = dict(b.named_parameters())
    return theirs.keys() == dict(a.named_parameters()).keys() and all(
        torch.equal(p, theirs[name]) and p.dtype == theirs[name].dtype
        for name, p in a.named_parameters())


def quiet(model):
    """Makes embeddings so small that the epsilon of the first norm matters, as for rare tokens."""
    with torch.no_grad():
        model.tok_embeddings.weight.mul_(0.02)
    return model


def reconfigured(model, **changes):
    """A model with the same weights and another config."""
    other = Llama(dataclasses.replace(model.config, **changes))
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in other.named_parameters():
            weight.copy_(weights.get(name, model.output.weight))
    return other


def _weights_changed(change, *names):
    def mistaken(model):
        model = reconfigured(model)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith(names):
                    weight.copy_(change(weight))
        return model
    return mistaken


def _halves(weight):
    return weight.view(-1, 8, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def _gate_for_up(model):
    model = reconfigured(model)
    for block in model.layers:
        ffn = block.feed_forward
        ffn.w_gate.weight, ffn.w_up.weight = ffn.w_up.weight, ffn.w_gate.weight
    return model


def _untied(model):
    model = reconfigured(model, is_tied=False)
    with torch.no_grad():
        model.output.weight.copy_(model.output.weight.roll(1, 0))
    return model


def _rescaled(model, **changes):
    return reconfigured(model,
                        rope_scaling=dataclasses.replace(model.config.rope_scaling, **changes))


MISTAKES = {
    "RoPE layout of q": _weights_changed(_halves, "wq.weight"),
    "RoPE layout of k": _weights_changed(_halves, "wk.weight"),
    "GQA order": _weights_changed(lambda weight: weight.roll(len(weight) // 2, 0), "wk.weight",
                                  "wv.weight"),
    "gate and up": _gate_for_up,
    "head tying": _untied,
    "theta": lambda model: reconfigured(model, rope_theta=2e4),
    "eps": lambda model: reconfigured(model, norm_eps=1e-6),
    "no scaling": lambda model: reconfigured(model, rope_scaling=None),
    "scaling factor 8 for 32": lambda model: _rescaled(model, factor=8.0),
}
"""What a converter may get wrong: from a model to the one that its file would then hold, for a head
of 16 channels.
"""


def difference_from_transformers(loaded, model):
    """Largest difference of two models' logits, relative to their size: ours of `loaded`,
    transformers' of `model`.
    """
    with torch.no_grad():
        theirs = twin_of(model)(ids(), position_ids=far_positions(model.config.max_seq_len)).logits
    return ((far_logits(loaded) - theirs).abs().max() / theirs.abs().max()).item()
