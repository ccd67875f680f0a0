"""Turns a trained dense model into one with experts, which computes exactly the same at first.

Each chosen feed-forward becomes the shared expert of a mixture. The routed experts start as copies
of some of its hidden channels, each expert of others, but with a `w_down` of zeros. So they add
nothing until training changes that. Gradients reach `w_down` at once, and from there the rest.

Copying the layer E times without the zeros would not be exact: the score multiplies an expert's
input, and at a fresh router it is about one half.

Notebook 23. Source of the idea: Komatsuzaki et al., Sparse Upcycling, arXiv:2212.05055.
"""

import copy
import dataclasses

import torch
from torch import nn

from llama_from_scratch import foreign
from llama_from_scratch.config import Experts, LlamaConfig
from llama_from_scratch.model.feed_forward import FeedForward
from llama_from_scratch.model.moe.layer import MoE


@torch.no_grad()
def upcycle(
    model: nn.Module, *, n_experts: int, width: int, n_active: int = 1, every: int = 1,
    seed: int = 0,
) -> nn.Module:
    """Returns a copy of a dense `Llama` with experts in layers every - 1, 2 every - 1, and so on.

    `width`: the hidden channels of a routed expert. `seed`: of the routers and the chosen channels.
    The copy is on the model's device and in its dtype. `model` itself stays as it is.
    Raises ValueError if a chosen layer has no dense feed-forward without biases.
    """
    config = getattr(model, "config", None)
    if not isinstance(config, LlamaConfig):
        raise ValueError(f"only a Llama can be upcycled; got {foreign.shown(model)}")
    if not isinstance(every, int) or not 1 <= every <= config.n_layers:
        raise ValueError(f"`every` counts layers, from 1 to {config.n_layers}; got {every!r}")
    layers = list(config.layers)
    for i in range(every - 1, config.n_layers, every):
        dense = model.layers[i].feed_forward
        if type(dense) is not FeedForward or dense.w_gate.bias is not None:
            raise ValueError("upcycling needs a dense feed-forward without biases; layer "
                             f"{i} has a {type(dense).__name__}"
                             f"{' with biases' if type(dense) is FeedForward else ''}")
        spec = Experts(n_experts=n_experts, n_active=n_active, width=width,
                       shared_width=dense.w_gate.out_features)
        if width > spec.shared_width:
            raise ValueError("a routed expert is made of the dense layer's channels, so width must "
                             f"be at most {spec.shared_width}; got {width}")
        layers[i] = dataclasses.replace(layers[i], feed_forward=spec)
    grown = copy.deepcopy(model)
    grown.config = dataclasses.replace(config, layers=tuple(layers))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for i in range(every - 1, config.n_layers, every):
            grown.layers[i].feed_forward = _grown(grown.layers[i].feed_forward, layers[i], model)
    return grown


def _grown(dense: FeedForward, spec, model: nn.Module) -> MoE:
    """Returns a mixture whose shared expert is `dense`, and whose routed experts add nothing."""
    width, weight = spec.feed_forward.width, dense.w_gate.weight
    moe = MoE(weight.shape[1], spec.feed_forward)
    moe.router.init_weights()
    for e in range(spec.feed_forward.n_experts):
        channels = torch.randperm(len(weight))[:width].to(weight.device)
        moe.experts.w_gate[e] = dense.w_gate.weight[channels].T
        moe.experts.w_up[e] = dense.w_up.weight[channels].T
    moe.experts.w_down.zero_()
    moe.to(device=weight.device, dtype=weight.dtype).train(dense.training)
    moe.shared = dense
    return moe
