"""What a model is made of, without making it: the shape of each parameter.

Sizes follow from the shapes.

Notebook 15.
"""

import functools
from collections.abc import Mapping
from types import MappingProxyType

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.model.unwritten import unwritten


@functools.lru_cache(maxsize=64)
def param_shapes(config: LlamaConfig) -> Mapping[str, tuple[int, ...]]:
    """The shape of every parameter, in the order of the model's own `named_parameters()`.

    A tied head is not listed.
    """
    return MappingProxyType(
        {name: tuple(weight.shape) for name, weight in unwritten(config).named_parameters()})
