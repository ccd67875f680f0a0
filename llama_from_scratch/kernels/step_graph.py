"""A decoding step recorded as a CUDA graph, and repeated with one call instead of several hundred.

A step of an 8B model is about 400 kernels. Each takes a few microseconds of Python and driver to
launch, which is longer than a small kernel runs. A graph keeps the launches with all their numbers
and addresses, and the GPU runs them without the CPU. So what changes from step to step must be in
the GPU's memory: the new ids, and the length of the cache (`model.static_cache`).

A graph belongs to one KV cache, whose addresses it has, and to the model's parts as they were. The
first step of a cache runs without a graph, so that all kernels are compiled; the second is
recorded. On the CPU, every step runs the same calls without a recording.

Notebook 35.
"""

import weakref
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llama_from_scratch.config import Experts
from llama_from_scratch.model.kv_cache import KVCache
from llama_from_scratch.model.static_cache import StaticCache
from llama_from_scratch.model.transformer import Llama


def records_on(device: torch.device) -> bool:
    """Returns whether steps on this device are recorded, or only run."""
    return device.type == "cuda"


class StepGraph:
    """The steps of one cache with one model."""

    def __init__(self, model: Llama, cache: KVCache) -> None:
        self._static = StaticCache(cache)
        self._ids_B1 = torch.zeros(cache.batch_size, 1, dtype=torch.int64, device=model.device)
        # What the graph has addresses of. Keeping it here also keeps its memory.
        self._parts = list(_parts_of(model))
        self._length, self._is_recorded = cache.length, records_on(model.device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._logits_BV: Tensor | None = None
        self.n_steps = 0

    def is_of(self, model: Llama) -> bool:
        """Returns whether the model still consists of the parts and tensors it had."""
        return all(owner.get(name) is part for owner, name, part in self._parts)

    @torch.inference_mode()
    def step(
        self, model: Llama, ids: Int[Tensor, "B 1"], *, cache: KVCache
    ) -> Float[Tensor, "B V"]:
        """Returns the logits after one more id per row, which the cache then contains."""
        if cache.length != self._length:   # it was truncated, or a text was read without this graph
            self._static.slot.fill_(cache.length)
        self._ids_B1.copy_(ids)
        if self._is_recorded and self.n_steps:
            logits_BV = self._repeat(model).clone()   # the next step overwrites it
        else:
            logits_BV = model.static_step(self._ids_B1, cache=self._static)
        cache.count(1)
        self._length, self.n_steps = cache.length, self.n_steps + 1
        return logits_BV

    def _repeat(self, model: Llama) -> Tensor:
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._logits_BV = model.static_step(self._ids_B1, cache=self._static)
            self._graph = graph
        self._graph.replay()
        return self._logits_BV


class StepGraphs:
    """The graphs of all caches that are in use; a cache that is gone takes its graph with it."""

    def __init__(self) -> None:
        self._by_cache: weakref.WeakKeyDictionary[KVCache, StepGraph] = weakref.WeakKeyDictionary()

    def step(
        self, model: Llama, ids: Int[Tensor, "B 1"], *, cache: KVCache
    ) -> Float[Tensor, "B V"]:
        """Returns the logits after one more id per row, by the cache's graph.

        A model whose parts were replaced gets a new graph. The old one has overwritten nothing but
        the slot of the new id, which is then written again.
        """
        graph = self._by_cache.get(cache)
        if graph is None:
            graph = self._by_cache[cache] = StepGraph(model, cache)
        length = cache.length
        logits_BV = graph.step(model, ids, cache=cache)
        if graph.is_of(model):   # asked while the GPU works
            return logits_BV
        cache.truncate(length)
        self._by_cache[cache] = StepGraph(model, cache)
        return self._by_cache[cache].step(model, ids, cache=cache)

    def forget(self) -> None:
        """Drops all graphs, because the model's memory is about to move."""
        self._by_cache.clear()

    def __len__(self) -> int:
        return len(self._by_cache)

    def __reduce__(self) -> tuple:
        """A copy is empty: a graph cannot be copied, and a copied model records its own."""
        return StepGraphs, ()


def can_record(model: nn.Module, ids: Tensor, *, cache: KVCache) -> bool:
    """Returns whether this is a step that a graph can repeat: one id per row, with room for it.

    The cache must keep all tokens in their slots, and no part may wait for the device.
    """
    return (type(model) is Llama and type(cache) is KVCache and ids.shape[1] == 1
            and not torch.is_grad_enabled() and not cache.forgets and not waits(model)
            and cache.length < min(cache.max_seq_len, model.config.max_seq_len))


def waits(model: Llama) -> bool:
    """Returns whether a forward pass asks the device for numbers, which no graph can repeat.

    Experts do: how many tokens each of them has decides how many products there are.
    """
    return any(isinstance(spec.feed_forward, Experts) for spec in model.config.layers)


def _parts_of(model: nn.Module) -> Iterator[tuple[dict, str, object]]:
    """Yields each module, parameter and buffer, with the dictionary and the name it has there."""
    for module in model.modules():
        for owner in (module._modules, module._parameters, module._buffers):
            for name, part in owner.items():
                yield owner, name, part
