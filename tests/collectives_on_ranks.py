"""What the ranks do in the tests of `parallel.collectives` and `parallel.differentiable`.

Every function here runs on five ranks, in each of `GROUPS` that a rank belongs to.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from llama_from_scratch.parallel import collectives, differentiable
from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.world import World

GROUPS = ((0,), (0, 1), (1, 2, 4), (0, 1, 2, 3), (0, 1, 2, 3, 4))
"""Sizes 1 to 5, in one of which a rank's number in the group is not its number in the program."""
N_RANKS = 5
SHAPES = ((), (0,), (1,), (3,), (4, 5), (60,), (2, 3, 7), (7, 3))
DTYPES = (torch.int64, torch.int32, torch.uint8, torch.float32, torch.float64, torch.bfloat16)


def make_groups(world: World) -> None:
    """Makes the groups and keeps them; every rank takes part in making every group."""
    made = [(ranks, dist.new_group(list(ranks))) for ranks in GROUPS]
    world.kept.groups = [
        RankGroup(ranks, own=world.rank, name=f"of {len(ranks)}", log=world.log,
                  process_group=process_group, device=world.device)
        for ranks, process_group in made if world.rank in ranks]


def drawn(shape: tuple, dtype: torch.dtype, *, seed: int) -> Tensor:
    """Returns numbers that differ from rank to rank, and whose sums need rounding."""
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (20 * numbers).abs().to(dtype)


# --- collectives --------------------------------------------------------------------------------


def sums(world: World, name: str) -> list[tuple[int, Tensor, Tensor, Tensor, Tensor]]:
    """Returns (group size, sum by our function, by PyTorch, of the sizes, all ranks' ours)."""
    found = []
    for group in world.kept.groups:
        for shape in SHAPES:
            for dtype in DTYPES:
                x = drawn(shape, dtype, seed=world.rank)
                ours = getattr(collectives, name)(x.clone(), group)
                theirs = group.all_reduce(x.clone())
                sizes = group.all_reduce(x.abs().double())
                found.append((group.size, ours, theirs, sizes, group.all_gather(ours[None])))
    return found


def sum_of_a_slanted_one(world: World) -> list[bool]:
    """Returns, for each way to sum, whether a tensor that is not contiguous is replaced in place.
    """
    found = []
    for function in (collectives.all_reduce, collectives.naive_all_reduce):
        for group in world.kept.groups:
            x = drawn((5, 4), torch.int64, seed=world.rank).T
            expected = group.all_reduce(x.clone(memory_format=torch.contiguous_format))
            result = function(x, group)
            found.append(result is x and torch.equal(x, expected))
    return found


def pieces(world: World) -> list[tuple[bool, bool, bool]]:
    """Returns whether reduce-scatter, all-gather and all-to-all are as PyTorch's, even sizes."""
    found = []
    for group in world.kept.groups:
        for dtype in DTYPES:
            x = drawn((2 * group.size, 3), dtype, seed=world.rank)
            found.append((
                torch.allclose(collectives.reduce_scatter(x, group).double(),
                               group.reduce_scatter(x).double(),
                               rtol=0.05 if dtype == torch.bfloat16 else 1e-6),
                torch.equal(collectives.all_gather(x.T, group), group.all_gather(x.T)),
                torch.equal(collectives.all_to_all(x, group), group.all_to_all(x))))
    return found


def uneven_pieces(world: World) -> list[tuple[bool, bool, bool]]:
    """The same for lengths that the ranks do not divide, from 0 to 7."""
    found = []
    for group in world.kept.groups:
        for length in range(8):
            x = drawn((length, 2), torch.int64, seed=world.rank)
            whole = group.all_reduce(x.clone())
            part = whole.tensor_split(group.size)[group.rank]
            n_rows = [(sender + receiver) % 3 for sender in range(group.size)
                      for receiver in range(group.size)]
            sent = n_rows[group.rank * group.size:][: group.size]
            received = n_rows[group.rank::group.size]
            rows = drawn((sum(sent), 2), torch.int64, seed=world.rank)
            how = dict(sent=sent, received=received)
            found.append((
                torch.equal(collectives.reduce_scatter(x, group), part),
                torch.equal(collectives.all_gather(part, group, length=length), whole),
                torch.equal(collectives.all_to_all(rows, group, **how),
                            group.all_to_all(rows, **how))))
    return found


def broadcasts(world: World) -> list[bool]:
    """Returns whether every rank has the source's tensor, for each group, source and layout."""
    found = []
    for group in world.kept.groups:
        for source in range(group.size):
            x = drawn((3, 4), torch.float32, seed=world.rank)
            expected = drawn((3, 4), torch.float32, seed=group.ranks[source])
            for slanted in (x.clone(), x.T.contiguous().T):
                result = collectives.broadcast(slanted, group, source=source)
                found.append(result is slanted and torch.equal(slanted, expected))
    return found


def bytes_sent(world: World, n_numbers: int) -> dict[str, list[tuple[int, int, int, int]]]:
    """Returns (group size, rank, bytes, steps) by function, on tensors of float32."""
    found: dict[str, list[tuple[int, int, int, int]]] = {}
    for group in world.kept.groups:
        whole = torch.zeros(n_numbers)
        runs: dict[str, tuple[Tensor, dict]] = {
            "all_reduce": (whole, {}), "naive_all_reduce": (whole, {}), "broadcast": (whole, {}),
            "reduce_scatter": (whole, {}),
            "all_gather": (whole.tensor_split(group.size)[group.rank], dict(length=n_numbers))}
        if n_numbers % group.size == 0:
            runs["all_to_all"] = whole, {}
        for name, (x, arguments) in runs.items():
            world.log.clear()
            getattr(collectives, name)(x, group, **arguments)
            found.setdefault(name, []).append(
                (group.size, group.rank, world.log.sent_bytes("send"),
                 world.log.counts().get("send", 0)))
    return found


def large(world: World) -> list[float]:
    """Returns one number of every collective on tensors far larger than a socket's buffer."""
    x = torch.full((world.size, 400_000), float(world.rank))
    return [collectives.all_reduce(x.clone(), world)[-1, -1].item(),
            collectives.reduce_scatter(x, world)[-1, -1].item(),
            collectives.all_gather(x, world)[-1, -1].item(),
            collectives.all_to_all(x, world)[-1, -1].item(),
            collectives.broadcast(x.clone(), world, source=2)[-1, -1].item()]


def refused(world: World) -> list[str]:
    """Returns the messages of what cannot be cut."""
    found = []
    for function in (lambda: collectives.all_gather(torch.zeros(2), world, length=17),
                     lambda: collectives.all_to_all(torch.zeros(7), world),
                     lambda: collectives.all_to_all(torch.zeros(5), world, sent=[1] * 5),
                     lambda: differentiable.scatter(torch.zeros(5, 7), world, axis=1),
                     lambda: differentiable.reduce_scatter(torch.zeros(5, 7), world, axis=-1)):
        try:
            function()
        except ValueError as error:
            found.append(str(error))
    return found


# --- differentiable -----------------------------------------------------------------------------

PAIRS = ("copy", "add_up", "gather", "scatter", "all_gather", "reduce_scatter", "all_to_all")
FROM_COMMON, TO_COMMON = ("copy", "scatter"), ("add_up", "gather")
STEP = 1e-5


def disagreement(
    group: RankGroup, function: Callable[[Tensor], Tensor], x: Tensor, *, from_common: bool,
    to_common: bool,
) -> float:
    """Returns the largest difference between autograd's gradient and finite differences.

    One number of x is changed, on one rank (or on all, if x is common), and the losses of all ranks
    are added up (or one is taken, if the result is common).
    """
    x = x.detach().requires_grad_()

    def loss(x: Tensor) -> Tensor:
        result = function(x.sin())
        weights = drawn(result.shape, torch.float64, seed=100 + group.rank * (not to_common))
        return (weights * (result / 3).tanh()).sum()

    def total(x: Tensor) -> Tensor:
        with torch.no_grad():
            mine = loss(x)
            return mine if to_common else group.all_reduce(mine)

    loss(x).backward()
    worst = 0.0
    for changed_rank in range(1 if from_common else group.size):
        for place in range(x.numel()):
            change = torch.zeros_like(x).reshape(-1)
            if from_common or changed_rank == group.rank:
                change[place] = STEP
            change = change.view(x.shape)
            slope = (total(x.detach() + change) - total(x.detach() - change)) / (2 * STEP)
            if from_common or changed_rank == group.rank:
                worst = max(worst, (slope - x.grad.reshape(-1)[place]).abs().item())
    return worst


def layouts(group: RankGroup, name: str, *, seed: int) -> Iterator[tuple[Tensor, dict]]:
    """Yields inputs and arguments: every axis, contiguous and not, cut unevenly where it may be.
    """
    length = group.size
    if name in ("copy", "add_up"):
        yield drawn((2, 3), torch.float64, seed=seed), {}
        yield drawn((2, 3), torch.float64, seed=seed).T, {}
        x = drawn((2, 3), torch.float64, seed=seed)  # another layout on every second rank
        yield x if group.rank % 2 else x.T.contiguous().T, {}
    elif name == "all_to_all":
        yield drawn((2, length), torch.float64, seed=seed).T, {}
        yield (drawn((sum(range(1, length + 1)), 1), torch.float64, seed=seed),
               dict(sent=list(range(1, length + 1)), received=[group.rank + 1] * length))
    else:
        for axis in (0, 1, -1):
            shape = [2, 1, 2]
            shape[axis] = length if name in ("scatter", "reduce_scatter") else 2
            yield drawn(tuple(shape), torch.float64, seed=seed), dict(axis=axis)
            x = drawn(tuple(reversed(shape)), torch.float64, seed=seed).permute(2, 1, 0)
            yield x, dict(axis=axis)


def gradients(world: World, name: str) -> list[float]:
    """Returns the disagreements of one pair, for the groups of up to four ranks and all layouts."""
    found = []
    for group in (group for group in world.kept.groups if group.size < N_RANKS):
        seed = 0 if name in FROM_COMMON else world.rank
        for x, arguments in layouts(group, name, seed=seed):
            found.append(disagreement(
                group, partial(getattr(differentiable, name), group=group, **arguments), x,
                from_common=name in FROM_COMMON, to_common=name in TO_COMMON))
    return found


WRONG = {
    "add_up with the gradient of copy": lambda x, group: differentiable.copy(
        differentiable.add_up(x, group), group),
    "copy without a gradient of the others": lambda x, group: x,
    "gather, when each rank does something else with it":
        lambda x, group: differentiable.gather(x, group, axis=0),
    "all_gather, when all do the same with it":
        lambda x, group: differentiable.all_gather(x, group, axis=0),
    "scatter that leaves out the slices of the others":
        lambda x, group: x.chunk(group.size)[group.rank],
    "reduce_scatter that gathers nothing":
        lambda x, group: differentiable.add_up(x, group).chunk(group.size)[group.rank],
    "all_to_all whose gradient stays": lambda x, group: x + (
        group.all_to_all(x.detach()) - x).detach(),
}
"""Functions with the right result and a wrong gradient, by what is wrong with them."""
KINDS = {name: (False, False) for name in WRONG} | {
    "add_up with the gradient of copy": (False, True),
    "copy without a gradient of the others": (True, False),
    "all_gather, when all do the same with it": (False, True),
    "scatter that leaves out the slices of the others": (True, False),
}
"""Whether their input and their result are common."""


def wrong_gradients(world: World) -> dict[str, float]:
    """Returns the disagreement of each of `WRONG`, in the group of all ranks."""
    group = world.kept.groups[-1]
    found = {}
    for name, function in WRONG.items():
        from_common, to_common = KINDS[name]
        x = drawn((group.size, 2), torch.float64, seed=0 if from_common else world.rank)
        found[name] = disagreement(group, partial(function, group=group), x,
                                   from_common=from_common, to_common=to_common)
    return found


def notes(world: World) -> list[tuple[str, str]]:
    """Returns (operation, note) of the calls that one layer makes, forward and backward."""
    world.log.clear()
    x = torch.ones(5, 5, requires_grad=True)
    y = differentiable.all_gather(x, world, axis=0, note="tokens")
    differentiable.reduce_scatter(y, world, axis=0).sum().backward()
    return [(call.op, call.note) for call in world.log.calls]


def alone_is_free(world: World) -> bool:
    """Returns whether a group of one returns its input itself, and logs nothing."""
    group = RankGroup([world.rank], own=world.rank, name="alone", log=world.log,
                      process_group=None, device=world.device)
    world.log.clear()
    x = torch.ones(3, 3, requires_grad=True)
    results = [getattr(differentiable, name)(x, group, **arguments) for name in PAIRS
               for arguments in [{} if name in ("copy", "add_up", "all_to_all") else {"axis": 0}]]
    return all(result is x for result in results) and not world.log.calls


def twice(world: World) -> str:
    """Returns the error of a second derivative, which would miss the other ranks."""
    x = torch.ones(2, requires_grad=True)
    y = differentiable.copy(x, world).pow(3).sum()
    first, = torch.autograd.grad(y, x, create_graph=True)
    try:
        first.sum().backward()
    except RuntimeError as error:
        return str(error)
    return ""
