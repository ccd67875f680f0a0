"""Parts of a run that can be exchanged: a norm, the activation, a mask, the optimizer and others.

A part is any class or function with the calls that its row in `KINDS` names, such as a class from
a notebook cell, `torch.nn.LayerNorm` or `torch.optim.SGD`. It is tried on a tiny input before the
run, so that a part with another signature is refused with a message and not in the middle of
training. The model is built first, with the weights of the plain one, and then its parts are
exchanged. So all other weights are the same as in the unchanged run with that seed.

Notebook 09.
"""

import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llama_from_scratch.config import Experts, LlamaConfig, nearest, record
from llama_from_scratch.experiments.source import name_of, text_of, uses_of
from llama_from_scratch.experiments.torch_optimizer import TorchOptimizer
from llama_from_scratch.files import digest
from llama_from_scratch.model.mask import (
    GivenMask,
    Tokens,
    Visible,
    causal_mask,
    document_mask,
    plain_tokens,
)
from llama_from_scratch.model.rope import Rotate
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train import TrainConfig, TrainParts


@record
class PartKind:
    """A part that can be exchanged.

    `call`: how it is called and what it returns, for people. `try_out(use, config)` calls it on a
    tiny input and raises if the result is wrong. `put_in(model, use)` changes a model.
    `change(parts, use)` returns changed parts of a step. `around(use, model, parts)` returns a
    context manager around the whole training, which yields changed parts. A kind has one of the
    three.
    """

    call: str
    try_out: Callable[[Any, LlamaConfig], None]
    put_in: Callable[[Llama, Any], None] | None = None
    change: Callable[[TrainParts, Any], TrainParts] | None = None
    around: Callable[[Any, Llama, TrainParts], AbstractContextManager[TrainParts]] | None = None


@record
class ExchangedPart:
    """Something that replaces a part. `use`: the class or function. `origin`: where it came from.

    `origin` is "module:name", "file.py:name", or "" for what was written in a notebook or a script.
    `source`: the text of its definition, or where it is imported from if Python has no text of it.
    `uses`: what the text refers to, see `source.uses_of`. A process that receives the part from
    another one can find none of them, nor its name, so they travel with it.
    """

    use: Any
    name: str
    source: str
    uses: Mapping[str, str]
    origin: str = ""

    def described(self) -> dict[str, Any]:
        """Returns the part as plain values, ready for JSON. `digest`: of its source and uses."""
        words = (word for pair in self.uses.items() for word in pair)
        return {"name": self.name, "origin": self.origin, "source": self.source,
                "uses": dict(self.uses), "digest": digest(self.source, *words)[:12]}


def part(use: Any) -> ExchangedPart:
    """Returns the part for a class or function, or for a string "module:name" or "file.py:name".

    Raises ValueError if a string does not lead to anything.
    """
    if isinstance(use, ExchangedPart):
        return use
    if isinstance(use, str):
        found = _found(use)
        return _described(found, use)
    module = getattr(use, "__module__", "__main__")
    name = getattr(use, "__qualname__", "<lambda>")
    is_imported = module != "__main__" and "<" not in name and _is_at(use, module, name)
    return _described(use, f"{module}:{name}" if is_imported else "")


def _described(use: Any, origin: str) -> ExchangedPart:
    return ExchangedPart(use=use, name=name_of(use), source=text_of(use), uses=uses_of(use),
                         origin=origin)


def try_out(parts: Mapping[str, ExchangedPart], config: LlamaConfig) -> None:
    """Raises ValueError for an unknown kind of part, or for a part with another signature."""
    refuse_together(parts)
    for name, given in parts.items():
        kind = kind_of(name)
        if not callable(given.use):
            raise ValueError(f"the part {name!r} must be {kind.call}; got a "
                             f"{type(given.use).__name__}: {given.use!r:.80}. Give the class or "
                             "function itself")
        state = torch.get_rng_state()
        try:
            kind.try_out(given.use, config)
        except Exception as error:
            raise ValueError(f"the part {name!r} must be {kind.call}; {given.name} was tried on a "
                             f"tiny input: {_first_words(error)}") from error
        finally:
            torch.set_rng_state(state)


def refuse_together(parts: Mapping[str, ExchangedPart]) -> None:
    """Raises ValueError for two parts of which one would have no effect."""
    if "activation" in parts and "feed_forward" in parts:
        raise ValueError("the part 'feed_forward' replaces the whole network with its activation, "
                         "so 'activation' would have no effect; got both. Give one of them")


def _first_words(error: Exception) -> str:
    return next(iter(str(error).split("\n")), "")[:300] or type(error).__name__


def kind_of(name: str) -> PartKind:
    """Returns the kind of part with this name. Raises ValueError with the nearest name."""
    if name not in KINDS:
        raise ValueError(f"no part is called {name!r:.60}; {nearest(str(name), KINDS)}")
    return KINDS[name]


def put_in(model: Llama, parts: Mapping[str, ExchangedPart]) -> bool:
    """Exchanges parts of the model, and returns whether there were any."""
    changes = [(KINDS[name].put_in, given.use) for name, given in sorted(parts.items())
               if KINDS[name].put_in is not None]
    for change, use in changes:
        change(model, use)
    return bool(changes)


def freeze_unused(model: Llama) -> list[str]:
    """Freezes the parameters that have no effect on the logits, and returns their names.

    A part may leave some out, such as an activation that does not use `up`. No optimizer can train
    what gets no gradient.
    """
    T = min(4, model.config.max_seq_len)
    ids = torch.arange(T)[None] % model.config.vocab_size
    try:
        logits = model(ids, positions=torch.arange(T)[None], documents=torch.zeros_like(ids))
        _expect_shape(logits, (1, T, model.config.vocab_size), "its logits")
        logits.sum().backward()
    except Exception as error:
        raise ValueError("with its parts exchanged, a model must still turn ids (B, T) into finite "
                         "logits (B, T, V) with a gradient; it was tried on four ids: "
                         f"{_first_words(error)}") from error
    unused = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    for name, p in model.named_parameters():
        p.grad = None
        if name in unused:
            p.requires_grad_(False)
    return unused


def of_step(parts: Mapping[str, ExchangedPart]) -> TrainParts:
    """Returns the parts of a training step, with the exchanged ones among them."""
    result = TrainParts()
    for name, given in sorted(parts.items()):
        if (change := KINDS[name].change) is not None:
            result = change(result, given.use)
    return result


@contextlib.contextmanager
def around(parts: Mapping[str, ExchangedPart], model: Llama) -> Iterator[TrainParts]:
    """Yields the parts of a training step, within the parts that surround the whole training."""
    step = of_step(parts)
    with contextlib.ExitStack() as stack:
        for name, given in sorted(parts.items()):
            if (surround := KINDS[name].around) is not None:
                step = stack.enter_context(surround(given.use, model, step))
        yield step


def has_unsaved_state(parts: Mapping[str, ExchangedPart]) -> bool:
    """Returns whether a part has a state that no checkpoint holds, so that no run can go on."""
    return any(KINDS[name].around is not None for name in parts)


# --- finding a part by name -------------------------------------------------------------------


def _found(name: str) -> Any:
    """Returns what "module:name" or "file.py:name" leads to."""
    where, _, attribute = name.rpartition(":")
    if not where or not attribute:
        raise ValueError('a part is named "module:name", such as torch.nn:LayerNorm, or '
                         f'"file.py:name"; got {name!r:.80}')
    if where.endswith(".py"):
        module = _file(Path(where))
    else:
        try:
            module = importlib.import_module(where)
        except Exception as error:  # the code of a module runs when it is imported
            raise ValueError(f"the module of a part must be importable; {where!r:.80} is not "
                             f"({type(error).__name__}: {error}). Check its name, or give a file: "
                             "file.py:name") from error
    found = module
    for step in attribute.split("."):
        if not hasattr(found, step):
            raise ValueError(f"{where} has no {attribute!r}; "
                             f"{nearest(attribute, [n for n in dir(module) if n[0] != '_'])}")
        found = getattr(found, step)
    return found


def _file(path: Path) -> Any:
    path = path.expanduser().absolute()
    if not path.is_file():
        raise ValueError(f"the file of a part must exist; {path} does not. Check its path")
    name = f"part_{path.stem}_{digest(str(path))[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that getsource finds classes
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} must run without an error before its parts can be used; it "
                         f"raised {type(error).__name__}: {error}") from error
    return module


def _is_at(use: Any, module: str, name: str) -> bool:
    found = sys.modules.get(module)
    for step in name.split("."):
        found = getattr(found, step, None)
    return found is use


# --- the kinds --------------------------------------------------------------------------------


def _expect_shape(result: Any, shape: tuple[int, ...], what: str) -> None:
    if not isinstance(result, Tensor) or tuple(result.shape) != shape:
        got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise ValueError(f"{what} must be a tensor of shape {shape}; got {got}")
    if result.dtype != torch.float32:
        raise ValueError(f"{what} must be {torch.float32} because its input is; got {result.dtype}")
    if not torch.isfinite(result).all():
        raise ValueError(f"{what} must be finite for ordinary inputs; got infinite numbers or NaN")


def _try_norm(use: Any, config: LlamaConfig) -> None:
    norm = use(config.dim, eps=config.norm_eps)
    _expect_shape(norm(torch.randn(2, 3, config.dim)), (2, 3, config.dim), "its result")


def _put_norm(model: Llama, use: Any) -> None:
    def fresh() -> nn.Module:
        return use(model.config.dim, eps=model.config.norm_eps)

    for block in model.layers:
        block.attention_norm, block.ffn_norm = fresh(), fresh()
    model.norm = fresh()


def _as_module(use: Any) -> nn.Module:
    """Returns a module for a class of modules, a module, or a function."""
    if isinstance(use, type) and issubclass(use, nn.Module):
        return use()
    return use if isinstance(use, nn.Module) else Calling(use)


class Calling(nn.Module):
    """A function as a module, so that it can be part of a model."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = function

    def forward(self, *inputs: Any) -> Any:
        return self._function(*inputs)

    def extra_repr(self) -> str:
        return getattr(self._function, "__qualname__", repr(self._function))


def _try_activation(use: Any, config: LlamaConfig) -> None:
    gate, up = torch.randn(2, 2, 3, 8)
    _expect_shape(_as_module(use)(gate, up), (2, 3, 8), "its result")


def _put_activation(model: Llama, use: Any) -> None:
    for block in model.layers:
        owners = [each for each in block.feed_forward.modules() if hasattr(each, "activation")]
        if not owners:
            raise ValueError("the part 'activation' replaces the activation of a FeedForward; a "
                             f"layer of this model has a {type(block.feed_forward).__name__}. "
                             "Exchange 'feed_forward' instead")
        for owner in owners:  # experts have two: of the routed ones and of the shared one
            owner.activation = _as_module(use)


def _try_feed_forward(use: Any, config: LlamaConfig) -> None:
    made = use(config.dim, config.ffn_dim)
    _expect_shape(made(torch.randn(2, 3, config.dim)), (2, 3, config.dim), "its result")


def _put_feed_forward(model: Llama, use: Any) -> None:
    kinds = [type(model.config.feed_forward(spec)) for spec in model.config.layers]
    if Experts in kinds:
        raise ValueError("the part 'feed_forward' is made with a dim and a width, which do not "
                         f"describe Experts; layer {kinds.index(Experts)} has some. Set "
                         "model.layers.N.feed_forward to a dense one first")
    for block, spec in zip(model.layers, model.config.layers, strict=True):
        width = getattr(model.config.feed_forward(spec), "width", model.config.ffn_dim)
        block.feed_forward = use(model.config.dim, width)
        if hasattr(block.feed_forward, "init_weights"):
            block.feed_forward.init_weights(n_additions=2 * len(model.layers))


def _try_rotation(use: Any, config: LlamaConfig) -> None:
    heads = [torch.randn(2, 3, n, config.head_dim) for n in (config.n_heads, config.n_kv_heads)]
    turns = torch.polar(torch.ones(1, 3, config.head_dim // 2),
                        torch.rand(1, 3, config.head_dim // 2))
    for made, given, name in zip(_as_module(use)(*heads, turns), heads, "qk", strict=True):
        _expect_shape(made, tuple(given.shape), f"its {name}")


def _put_rotation(model: Llama, use: Any) -> None:
    rotated = [block for block in model.layers if isinstance(block.attention.rotate, Rotate)]
    if not rotated:
        raise ValueError("the part 'rotation' replaces the rotation of queries and keys; no layer "
                         "of this model has one. Set model.layers.has_rope=true")
    for block in rotated:
        block.attention.rotate = _as_module(use)


def _tiny_visible() -> Visible:
    tokens = Tokens(positions=torch.arange(4)[None], documents=torch.tensor([[0, 0, 1, 1]]),
                    is_plain=False)
    return Visible(tokens=tokens, n_queries=4)


def _try_attention(use: Any, config: LlamaConfig) -> None:
    H, G, K = config.n_heads, config.n_kv_heads, config.head_dim
    q, k, v = (torch.randn(1, 4, n, K) for n in (H, G, G))
    attend = WithMask(_as_module(use))
    _expect_shape(attend(q, k, v, _tiny_visible()), (1, 4, H, K), "its result")
    plain = Visible(tokens=plain_tokens(4), n_queries=4)
    _expect_shape(attend(q, k, v, plain), (1, 4, H, K), "its result for a single document")


def _put_attention(model: Llama, use: Any) -> None:
    for block in model.layers:
        block.attention.attend = WithMask(_as_module(use))


class WithMask(nn.Module):
    """Attention that always finds a mask in `visible`, which otherwise has none where it can."""

    def __init__(self, attend: nn.Module) -> None:
        super().__init__()
        self._attend = attend

    def forward(self, q: Tensor, k: Tensor, v: Tensor, visible: Visible | GivenMask) -> Tensor:
        if visible.mask is None:
            T, S = visible.shape
            visible = GivenMask(mask=causal_mask(T, S, device=q.device)[:, None])
        return self._attend(q, k, v, visible)


class Masked(nn.Module):
    """Attention with another rule for who sees whom; documents stay apart, and padding unseen."""

    def __init__(self, attend: nn.Module, rule: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self._attend, self._rule = attend, rule

    def forward(self, q: Tensor, k: Tensor, v: Tensor, visible: Visible) -> Tensor:
        # A chunk of the layer's own does not count: the rule says everything.
        return self._attend(q, k, v, GivenMask(mask=mask_of(self._rule, visible)[:, None]))


def mask_of(rule: Callable[[Tensor, Tensor], Tensor], visible: Visible) -> Tensor:
    """Returns the mask (B, T, S) of a rule for the positions of queries and keys."""
    tokens, (T, _) = visible.tokens, visible.shape
    keys = tokens.positions[:, None, :]
    queries = tokens.positions[:, -T:, None]
    mask_BTS = rule(queries, keys)
    expected = torch.broadcast_shapes(queries.shape, keys.shape)
    if not isinstance(mask_BTS, Tensor) or mask_BTS.dtype != torch.bool:
        raise ValueError("its result must be a tensor of True and False; got "
                         f"{getattr(mask_BTS, 'dtype', type(mask_BTS).__name__)}")
    mask_BTS = mask_BTS.expand(expected)
    if tokens.documents is not None:
        mask_BTS = mask_BTS & document_mask(tokens.documents[:, -T:], tokens.documents)
    if not mask_BTS.any(-1).all():
        raise ValueError("each token must see at least one token, such as itself; the rule leaves "
                         "a token that sees nothing")
    return mask_BTS


def _try_mask(use: Any, config: LlamaConfig) -> None:
    mask_of(use, _tiny_visible())


def _put_mask(model: Llama, use: Any) -> None:
    for block in model.layers:
        block.attention.attend = Masked(block.attention.attend, use)


def _optimizer(use: Any) -> Callable[..., Any]:
    is_torch = isinstance(use, type) and issubclass(use, torch.optim.Optimizer)
    return (lambda groups, config: TorchOptimizer(use, groups)) if is_torch else use


def _try_optimizer(use: Any, config: LlamaConfig) -> None:
    from llama_from_scratch.train.optimizer import Group

    weights = {"w": nn.Parameter(torch.ones(2, 2)), "b": nn.Parameter(torch.ones(2))}
    made = _optimizer(use)([Group(params={name: p}, weight_decay=0.1 * (p.ndim - 1))
                            for name, p in weights.items()], TrainConfig())
    for method in ("step", "zero_grad", "state_dict", "load_state_dict"):
        if not hasattr(made, method):
            raise ValueError(f"it must have the method {method}; {type(made).__name__} has none")
    made.zero_grad()
    if any(p.grad is not None and p.grad.any() for p in weights.values()):
        raise ValueError("its zero_grad() must remove the gradients; some are left")
    for p in weights.values():
        p.grad = torch.ones_like(p)
    made.step(lr=0.1)
    for name, p in weights.items():
        if not torch.isfinite(p).all() or torch.equal(p, torch.ones_like(p)):
            raise ValueError("its step(lr=0.1) must move matrices and vectors to finite values; it "
                             f"moved {name} of ones with a gradient of ones to {p.tolist()}")
    state = made.state_dict()
    if not isinstance(state, Mapping) or not all(
            isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise ValueError("its state_dict() must return tensors by name, which are saved; got "
                         f"{state!r:.80}")
    made.load_state_dict(state)


def _try_schedule(use: Any, config: LlamaConfig) -> None:
    for step in (0, 5, 9):
        rate = use(step, n_steps=10, peak=1.0, n_warmup=2, final_ratio=0.1)
        if not isinstance(rate, (int, float)) or isinstance(rate, bool) or not 0 <= rate < 1e30:
            raise ValueError(f"a learning rate is a number of at least 0; step {step} of 10 got "
                             f"{rate!r:.60}")


def _try_loss(use: Any, config: LlamaConfig) -> None:
    from llama_from_scratch.train.data import IGNORE, Batch

    # The real shape of a model would take long; a tiny Llama shows the same calls.
    tiny = dataclasses.replace(
        config, dim=8, n_heads=2, n_kv_heads=1, explicit_head_dim=None, ffn_dim=8, vocab_size=11,
        layers=config.layers[:1], max_seq_len=8)
    numbers = torch.arange(8)[None] % 8
    batch = Batch(ids=numbers, targets=torch.where(numbers == 7, IGNORE, numbers),
                  documents=torch.zeros_like(numbers), positions=numbers)
    model = Llama(tiny)
    total = use(model, batch, is_bf16=False)
    _expect_shape(total, (), "its result, a sum over the targets,")
    total.backward()


def _try_balance(use: Any, config: LlamaConfig) -> None:
    tiny = dataclasses.replace(
        config, dim=8, n_heads=2, n_kv_heads=1, explicit_head_dim=None, ffn_dim=8, vocab_size=11,
        layers=config.layers[:1], max_seq_len=8)
    with use(Llama(tiny), TrainParts()) as made:
        if not isinstance(made, TrainParts):
            raise ValueError("it must yield the parts of a step, a TrainParts; got a "
                             f"{type(made).__name__}")


def _try_model(use: Any, config: LlamaConfig) -> None:
    if len(inspect.signature(use).parameters) != 1:
        raise ValueError(f"it takes one argument, the model; got {inspect.signature(use)}")


def _change_model(model: Llama, use: Any) -> None:
    use(model)


def _stepped(field: str, wrap: Callable[[Any], Any] = lambda use: use):
    def change(parts: TrainParts, use: Any) -> TrainParts:
        return dataclasses.replace(parts, **{field: wrap(use)})
    return change


KINDS: Mapping[str, PartKind] = {
    "norm": PartKind(
        call="called as norm(dim, eps=...), which returns a module (B, T, D) -> (B, T, D)",
        try_out=_try_norm, put_in=_put_norm),
    "activation": PartKind(
        call="a function or module (gate, up) -> hidden, each of shape (B, T, F)",
        try_out=_try_activation, put_in=_put_activation),
    "feed_forward": PartKind(
        call="called as feed_forward(dim, width), which returns a module (B, T, D) -> (B, T, D)",
        try_out=_try_feed_forward, put_in=_put_feed_forward),
    "rotation": PartKind(
        call="a function or module (q, k, rotation) -> (q, k), with q (B, T, H, K), k (B, T, G, K) "
        "and the complex rotation (B, T, K / 2)", try_out=_try_rotation, put_in=_put_rotation),
    "attention": PartKind(
        call="a function or module (q, k, v, visible) -> (B, T, H, K), where visible.mask says who "
        "sees whom", try_out=_try_attention, put_in=_put_attention),
    "mask": PartKind(
        call="a function (query_positions, key_positions) -> True where the query sees the key, "
        "such as lambda q, k: k <= q", try_out=_try_mask, put_in=_put_mask),
    "model": PartKind(
        call="a function (model) that changes the finished model in place",
        try_out=_try_model, put_in=_change_model),
    "optimizer": PartKind(
        call="a class of torch.optim, or called as optimizer(groups, config), which returns an "
        "object with step(lr=...), zero_grad(), state_dict() and load_state_dict(state)",
        try_out=_try_optimizer, change=_stepped("make_optimizer", _optimizer)),
    "schedule": PartKind(
        call="a function (step, *, n_steps, peak, n_warmup, final_ratio) -> the learning rate",
        try_out=_try_schedule, change=_stepped("schedule")),
    "loss": PartKind(
        call="a function (model, batch, *, is_bf16) -> the sum of the loss over the targets",
        try_out=_try_loss, change=_stepped("loss")),
    "balance": PartKind(
        call="a function (model, parts) that returns a context manager around the training, which "
        "yields the parts of a step, a TrainParts", try_out=_try_balance,
        around=lambda use, model, parts: use(model, parts)),
}
"""Every kind of part that can be exchanged."""
