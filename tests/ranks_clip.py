"""What the ranks do in the tests of `clip`: gradients that are distributed in every way."""

import torch
import toy_parallel as toy
from torch import Tensor, nn

from llama_from_scratch.parallel.clip import clip_gradients, gradient_norm
from llama_from_scratch.parallel.data_parallel import DataParallel
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.placement import Slice

SIZES = {"wide": (64, 16), "narrow": (16, 8), "kv": (4, 6), "norm": (7,), "scale": (1,)}
"""The norm and the scale are copies under tensor parallel, and kv has 2 parts, however many ranks
there are."""


def logical(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Returns whole gradients of very different lengths."""
    generator = torch.Generator().manual_seed(3)
    return {name: (10.0**i * torch.randn(size, generator=generator, dtype=torch.float64)).to(dtype)
            for i, (name, size) in enumerate(SIZES.items())}


def slices_of(rank: int, n_ranks: int) -> dict[str, Slice]:
    """Returns what one of the tensor parallel ranks has of each."""
    n_kv = min(n_ranks, 2)
    copies = n_ranks // n_kv
    return {"wide": Slice(axis=0, part=rank, n_parts=n_ranks),
            "narrow": Slice(axis=1, part=rank, n_parts=n_ranks),
            "kv": Slice(axis=0, part=rank // copies, n_parts=n_kv, n_copies=copies),
            "norm": Slice(n_copies=n_ranks), "scale": Slice(n_copies=n_ranks)}


def with_gradients(grads: dict[str, Tensor]) -> dict[str, nn.Parameter]:
    """Returns parameters with these gradients."""
    params = {}
    for name, grad in grads.items():
        params[name] = nn.Parameter(torch.zeros_like(grad))
        params[name].grad = grad.clone()
    return params


def piece(whole: Tensor, rank: int, n_ranks: int) -> Tensor:
    """Returns a rank's part of a flat tensor, cut into equal parts; the last ones may be empty."""
    size = -(-whole.numel() // n_ranks)
    return whole.flatten()[rank * size:(rank + 1) * size]


def norms(world, *, tp: int, is_sharded: bool, dtype: torch.dtype = torch.float64):
    """Returns the norms of each type, then a clipped gradient's norm before and the gradients."""
    axes = Mesh(tp=tp, dp=world.size // tp).on(world)
    slices = slices_of(axes.tp.rank, tp)
    grads = {name: slices[name].of(whole) for name, whole in logical(dtype).items()}
    if is_sharded:
        cut = {name: piece(grad, axes.dp.rank, axes.dp.size) for name, grad in grads.items()}
        grads = {name: grad for name, grad in cut.items()
                 if grad.numel() or name == "norm"}  # names without a piece may be absent
    params = with_gradients(grads)
    groups = dict(slices=slices if tp > 1 else {}, tp=axes.tp,
                  shards=axes.dp if is_sharded else None)
    found = [gradient_norm(params, **groups, norm_type=kind) for kind in toy.NORM_TYPES]
    before = clip_gradients(params, **groups, max_norm=2.0)
    after = gradient_norm(params, **groups)
    return torch.stack([*found, before, after]), params["norm"].grad


def norms_with_experts(world, *, sizes: dict[str, int], is_sharded: bool):
    """Returns the norms of each type when ranks along `ep` divide the first axis of "wide"."""
    axes = Mesh(**sizes).on(world)
    slices = slices_of(axes.tp.rank, axes.tp.size) | {"wide": Slice(n_copies=axes.tp.size)}
    grads = {name: slices[name].of(whole) for name, whole in logical().items()}
    grads["wide"] = Slice(part=axes.ep.rank, n_parts=axes.ep.size).of(grads["wide"])
    groups = (axes.ep,)
    if is_sharded:
        groups = axes.expert_shards, axes.ep
        for name, grad in grads.items():
            shards = axes.expert_shards if name == "wide" else axes.shards
            grads[name] = piece(grad, shards.rank, shards.size)
    params = with_gradients({name: grad for name, grad in grads.items() if grad.numel()})
    return torch.stack([gradient_norm(params, slices=slices, tp=axes.tp, norm_type=kind,
                                      shards=axes.shards if is_sharded else None,
                                      elsewhere={"wide": groups}) for kind in toy.NORM_TYPES])


def mistaken(world, mistake: str):
    """Returns the norm of type 2 that tensor parallel ranks get with a mistake, and what they then
    have of a gradient of which each has a copy."""
    axes = Mesh(tp=world.size).on(world)
    slices = slices_of(axes.tp.rank, world.size)
    params = with_gradients({name: slices[name].of(whole) for name, whole in logical().items()})
    if mistake == "copies as parts":
        slices = {name: Slice(part=axes.tp.rank, n_parts=world.size) for name in params}
        norm = clip_gradients(params, slices=slices, tp=axes.tp, shards=None, max_norm=2.0)
    else:  # each rank with its own norm
        own = Mesh(dp=world.size).on(world).tp
        norm = clip_gradients(params, slices={}, tp=own, shards=None, max_norm=2.0)
    return norm.item(), params["norm"].grad


def not_finite(world, value: float):
    """Returns the norm when one rank has an infinite or undefined gradient, and its gradients."""
    axes = Mesh(dp=world.size).on(world)
    params = with_gradients({"w": torch.full((2,), 3.0)})
    if world.rank == 1:
        params["w"].grad[0] = value
    norm = clip_gradients(params, slices={}, tp=axes.tp, shards=axes.dp, max_norm=1.0)
    return norm.item(), params["w"].grad


def refusals(world):
    axes = Mesh(tp=world.size).on(world)
    params = with_gradients({"w": torch.ones(2)})
    told = {}
    for name, change in {
        "no slice": dict(slices={}), "other size": dict(slices={"w": Slice(n_parts=3)}),
        "type": dict(slices={"w": Slice(n_copies=world.size)}, norm_type=0.0),
        "no gradient": dict(slices={"w": Slice(n_copies=world.size)}),
    }.items():
        if name == "no gradient":
            params["w"].grad = None
        try:
            gradient_norm(params, **{"tp": axes.tp, "shards": None} | change)
        except ValueError as error:
            told[name] = str(error)
    return told


def clipped_steps(world, *, n_steps: int):
    """Returns the norms before clipping, in fp32 with clipping at each step, and the weights."""
    model = toy.Toy().float()
    axes = Mesh(dp=world.size).on(world)
    strategy = DataParallel(model, axes.data, bucket_bytes=4000)
    clip = dict(slices={}, tp=axes.tp, shards=None, max_norm=0.25)
    lengths = []

    def clipped(params):
        lengths.append(clip_gradients(params, **clip).item())
        return (lengths[-1],)

    toy.observed(model, strategy, data=axes.data, n_steps=n_steps, norms=clipped)
    return lengths, {name: p.detach() for name, p in strategy.params.items()}
