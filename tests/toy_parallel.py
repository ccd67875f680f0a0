"""A small model with everything that strategies get wrong, its batches, and what a run must give.

The model has a weight that is used twice, products that are split into several outputs, parameters
from 1 to 2,304 elements, a part that rows can skip, a parameter that nothing uses, a frozen one,
and a head that may be tied. The rows of each rank have another number of targets.
`observed` trains under any strategy, or in one process, and returns all that can be compared.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.train.data import IGNORE

V, D, F_ = 96, 24, 40
LR = 0.5


class Toy(nn.Module):
    """Logits of the next token, (B, T, V); rows with a flag also go through `extra`."""

    def __init__(self, *, is_tied: bool = False, seed: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(V, D)
        self.qkv = nn.Linear(D, 3 * D, bias=False)
        self.twice = nn.Linear(D, D)
        self.scale = nn.Parameter(torch.ones(1))
        self.extra = nn.Linear(D, D)
        self.frozen = nn.Parameter(torch.ones(D), requires_grad=False)
        self.gate_up = nn.Linear(D, 2 * F_, bias=False)
        self.down = nn.Linear(F_, D, bias=False)
        self.unused = nn.Parameter(torch.ones(5))
        self.norm = nn.Parameter(torch.ones(D))
        self.head = nn.Linear(D, V, bias=False)
        if is_tied:
            self.head.weight = self.embedding.weight
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) / max(p.shape[-1], 4) ** 0.5)
        self.double()

    def forward(self, ids: Tensor, flags: Tensor) -> Tensor:
        x = self.embedding(ids)
        rows = flags.nonzero()[:, 0]
        if len(rows):
            x = x.index_add(0, rows, self.extra(x[rows]))
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        x = x + F.scaled_dot_product_attention(q, k, v, is_causal=True) * self.frozen
        x = x + self.twice(torch.tanh(self.twice(x))) * self.scale
        gate, up = self.gate_up(x * self.norm).chunk(2, dim=-1)
        return self.head(x + self.down(F.silu(gate) * up))


class Rows(NamedTuple):
    """A micro-batch. `flags`: which rows go through the part that others skip."""

    ids: Tensor
    targets: Tensor
    flags: Tensor

    @property
    def n_targets(self) -> int:
        return int((self.targets != IGNORE).sum())

    def share(self, rank: int, n_ranks: int) -> "Rows":
        """Returns the rows of one rank: neighbors, an equal number for each rank."""
        n = len(self.ids) // n_ranks
        return Rows(*(x[rank * n:(rank + 1) * n] for x in self))


def batch(step: int, *, n_micro: int = 1, n_rows: int = 8, T: int = 6) -> list[Rows]:
    """Returns the micro-batches of a step. The last one has a flag only in its last row.

    Later rows have fewer targets, and so have later ranks.
    """
    generator = torch.Generator().manual_seed(1000 + step)
    made = []
    for micro in range(n_micro):
        ids = torch.randint(V, (n_rows, T + 1), generator=generator)
        targets = ids[:, 1:].clone()
        for row in range(n_rows):
            targets[row, :(row + micro) * T // (n_rows + n_micro)] = IGNORE
        flags = torch.arange(n_rows) == (n_rows - 1 if micro == n_micro - 1 else micro)
        made.append(Rows(ids[:, :-1], targets, flags))
    return made


def sum_of_losses(model: Toy, rows: Rows) -> Tensor:
    """Returns the sum of -log p(target) over the targets."""
    logits = model(rows.ids, rows.flags)
    return F.cross_entropy(logits.flatten(0, 1), rows.targets.flatten(), ignore_index=IGNORE,
                           reduction="sum")


class OneProcess:
    """The strategy of a single process. A parameter without a gradient gets zeros."""

    def __init__(self, model: nn.Module) -> None:
        self.params = {name: p for name, p in model.named_parameters() if p.requires_grad}

    @contextmanager
    def micro_batch(self, *, is_last: bool) -> Iterator[None]:
        yield

    def finish(self) -> None:
        for p in self.params.values():
            if p.grad is None:
                p.grad = torch.zeros_like(p)

    def after_step(self) -> None:
        pass

    def whole(self, pieces: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        yield from pieces.items()


class Seen(NamedTuple):
    """What one step gave: the loss per target, and whole gradients, norms and weights after it."""

    loss: float
    grads: dict[str, Tensor]
    norms: tuple[float, ...]
    weights: dict[str, Tensor]


def plain_norms(params: Mapping[str, Tensor]) -> tuple[float, ...]:
    """Returns the norms of types 1, 2 and infinity of all gradients as one vector."""
    whole = torch.cat([p.grad.flatten().double() for p in params.values()])
    return tuple(float(torch.linalg.vector_norm(whole, ord)) for ord in NORM_TYPES)


NORM_TYPES = (1.0, 2.0, torch.inf)


def observed(
    model: nn.Module, strategy, *, data: RankGroup | None = None, n_steps: int = 3,
    n_micro: int = 1, norms: Callable[[Mapping[str, Tensor]], tuple[float, ...]] = plain_norms,
    loss: Callable[[nn.Module, Rows], Tensor] = sum_of_losses,
    make_batch: Callable[..., list[Rows]] = batch, lr: float = LR,
) -> list[Seen]:
    """Trains with SGD and returns what each step gave. `data`: the ranks that read other rows.

    `norms(params)` returns the norms of the gradients that this rank's `params` have.
    """
    rank, n_ranks = (0, 1) if data is None else (data.rank, data.size)
    seen = []
    for step in range(n_steps):
        micros = make_batch(step, n_micro=n_micro)
        n_targets = sum(rows.n_targets for rows in micros)
        total = torch.zeros((), dtype=torch.float64)
        for number, rows in enumerate(micros):
            with strategy.micro_batch(is_last=number == n_micro - 1):
                partial = loss(model, rows.share(rank, n_ranks)) / n_targets
                partial.backward()
            total += partial.detach()
        strategy.finish()
        if data is not None:
            data.all_reduce(total, note="loss")
        params = strategy.params
        grads = {name: g.detach().clone()
                 for name, g in strategy.whole({name: p.grad for name, p in params.items()})}
        found = norms(params)
        with torch.no_grad():
            for p in params.values():
                p -= lr * p.grad
                p.grad = None
        strategy.after_step()
        weights = {name: w.detach().clone() for name, w in strategy.whole(params)}
        seen.append(Seen(float(total), grads, found, weights))
    return seen


def distance(ours: list[Seen], theirs: list[Seen]) -> dict[str, float]:
    """Returns the largest absolute difference of losses, gradients, norms and weights."""
    assert len(ours) == len(theirs)
    far = dict.fromkeys(("loss", "grads", "norms", "weights"), 0.0)
    for a, b in zip(ours, theirs, strict=True):
        far["loss"] = max(far["loss"], abs(a.loss - b.loss))
        far["norms"] = max(far["norms"], *(abs(x - y) for x, y in zip(a.norms, b.norms,
                                                                     strict=True)))
        for what in ("grads", "weights"):
            mine, other = getattr(a, what), getattr(b, what)
            assert mine.keys() == other.keys(), mine.keys() ^ other.keys()
            far[what] = max(far[what], *(float((mine[n] - other[n]).abs().max()) for n in mine))
    return far


def same_bits(ranks: list[list[Seen]]) -> bool:
    """Returns whether norms, gradients and weights are equal, bit for bit, on all ranks."""
    first, *others = ranks
    return all(
        a.norms == b.norms and a.loss == b.loss
        and all(torch.equal(a.grads[n], b.grads[n]) for n in a.grads)
        and all(torch.equal(a.weights[n], b.weights[n]) for n in a.weights)
        for other in others for a, b in zip(first, other, strict=True))


class InFloat64(TorchFunctionMode):
    """A context in which `x.float()` returns float64, so that a Llama in float64 has no rounding.

    Its norm, rotation and logits are computed in fp32 otherwise, whatever the weights' dtype.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return (torch.Tensor.double if func is torch.Tensor.float else func)(*args, **kwargs or {})
