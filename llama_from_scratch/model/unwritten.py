"""A model in shape alone: no parameter has memory or a drawn value.

A checkpoint is loaded into one, tensor by tensor, so that a model is never in memory twice; and
what a model is made of can be asked without making it.

Notebook 18.
"""

import torch
from torch.overrides import TorchFunctionMode

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.model.transformer import Llama


def unwritten(config: LlamaConfig) -> Llama:
    """The model of a config whose parameters have a shape and no memory.

    Draws nothing: the caller's seed is kept.
    """
    with _Unwritten():
        return Llama(config)


class _Unwritten(TorchFunctionMode):
    """Under it modules are made whose parameters have a shape and no memory.

    Nothing is drawn for them. `torch.device("meta")` would do the same and take 50 ms, and two
    seconds the first time: there PyTorch runs `normal_` and `arange` in Python, and imports sympy
    to do so.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.empty, torch.ones):
            return func(*args, **kwargs | {"device": "meta"})
        if func.__name__ in ("normal_", "uniform_", "fill_", "kaiming_uniform_"):
            target = args[0] if args else kwargs["tensor"]
            if target.is_meta:
                return target
        return func(*args, **kwargs)
