"""Fresh weights one tensor after the other, so that no rank ever holds the whole model.

They are the weights of `torch.manual_seed(seed)` followed by `Llama(config)`, to the last bit: the
generator must have drawn the same numbers before. A module's constructor draws numbers, too, which
`init_weights` replaces, so these are drawn and forgotten.

Notebook 42.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.model.init import init_linear
from llama_from_scratch.model.transformer import Block, Llama
from llama_from_scratch.model.unwritten import WithoutMemory, unwritten


def fresh_weights(
    config: LlamaConfig, *, seed: int, dtype: torch.dtype = torch.float32
) -> Iterator[tuple[str, Tensor]]:
    """Yields (name, tensor) for every parameter of a new Llama, each once, on the CPU.

    The numbers are drawn in fp32, and then rounded to `dtype`. At most one block is in memory.
    Raises ValueError for a model that sees, which is made from a finished text model.
    """
    if type(config) is not LlamaConfig:
        raise ValueError("fresh weights are for a text model; got the config of a "
                         f"{type(config).__name__}. Attach an encoder to a finished model: "
                         "vision.attach")
    model = unwritten(config)
    with _own_generator(torch.Generator().manual_seed(seed).get_state()) as ours:
        _draw_what_constructors_draw(model)
    for prefix, unit in _units(model):
        _materialize(unit)
        with _own_generator(ours[0]) as ours:
            _draw(unit, n_additions=2 * config.n_layers)
        for name, p in unit.named_parameters(prefix=prefix):
            yield name, p.detach().to(dtype)
        _forget(unit)


@contextlib.contextmanager
def _own_generator(state: Tensor) -> Iterator[list[Tensor]]:
    """Draws from this state of torch's global generator, and gives the caller's own state back.

    Yields a list, which holds the state after the block when that has ended.
    """
    after: list[Tensor] = []
    theirs = torch.random.get_rng_state()
    torch.random.set_rng_state(state)
    try:
        yield after
    finally:
        after.append(torch.random.get_rng_state())
        torch.random.set_rng_state(theirs)


def _draw(unit: nn.Module, *, n_additions: int) -> None:
    if isinstance(unit, nn.Linear | nn.Embedding):
        init_linear(unit)
    elif isinstance(unit, Block):
        unit.init_weights(n_additions=n_additions)
    else:
        unit.init_weights()


def _units(model: Llama) -> Iterator[tuple[str, nn.Module]]:
    """Yields the parts of the model in the order in which `init_weights` draws them."""
    yield "tok_embeddings", model.tok_embeddings
    for i, block in enumerate(model.layers):
        yield f"layers.{i}", block
    yield "norm", model.norm
    if not model.config.is_tied:
        yield "output", model.output


def _draw_what_constructors_draw(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            _materialize(module)
            module.reset_parameters()
            _forget(module)


def _materialize(module: nn.Module) -> None:
    _replace(module, lambda p: torch.empty(p.shape))


def _forget(module: nn.Module) -> None:
    with WithoutMemory():
        _replace(module, lambda p: torch.empty(p.shape))


def _replace(module: nn.Module, make: Callable[[Tensor], Tensor]) -> None:
    for part in module.modules():
        for name, p in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(make(p)))
