"""A model whose parameters have shapes and no memory yet: to ask it for them, or to fill it.

Notebook 18.
"""

import torch
from torch.overrides import TorchFunctionMode

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.model.transformer import Llama


def unwritten(config: LlamaConfig) -> Llama:
    """The model of a config, its parameters on the meta device; nothing is drawn for them."""
    with _Unwritten():
        return Llama(config)


class _Unwritten(TorchFunctionMode):
    """Under it modules are made whose parameters have a shape and no memory.

    `torch.device("meta")` would do the same and take 50 ms, and two seconds the first time: there
    PyTorch runs `normal_` and `arange` in Python, and imports sympy for it.
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
