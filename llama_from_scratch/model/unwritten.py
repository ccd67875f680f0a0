"""A model whose parameters have shapes but no memory yet, to count its parameters or to load it.

Notebook 18.
"""

import torch
from torch.overrides import TorchFunctionMode

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.model.transformer import Llama


def unwritten(config: LlamaConfig) -> Llama:
    """Returns the model of a config with its parameters on the meta device, without values."""
    with WithoutMemory():
        return config.new_model()


class WithoutMemory(TorchFunctionMode):
    """A context in which new modules get parameters with a shape but no memory.

    `torch.device("meta")` does the same but takes 50 ms, and two seconds the first time. There
    PyTorch runs `normal_` and `arange` in Python and imports sympy for it.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.empty, torch.ones):
            return func(*args, **kwargs | {"device": "meta"})
        if func.__name__ in ("normal_", "uniform_", "fill_", "zero_", "kaiming_uniform_"):
            target = args[0] if args else kwargs["tensor"]
            if target.is_meta:
                return target
        return func(*args, **kwargs)
