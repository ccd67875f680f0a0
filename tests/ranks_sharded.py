"""What the ranks do in the tests of `sharded`; functions of a test file cannot travel."""

import math
import time

import torch
import toy_parallel as toy
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from llama_from_scratch import family
from llama_from_scratch.config import LayerSpec, LlamaConfig, VisionConfig
from llama_from_scratch.generate import generate
from llama_from_scratch.model.rope import Rope
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.shard import shard
from llama_from_scratch.parallel.sharded import Sharded
from llama_from_scratch.train.data import IGNORE
from llama_from_scratch.train.seeing import freeze_text
from llama_from_scratch.vision.adapter import attach
from llama_from_scratch.vision.tiles import TiledImages

WAYS = {"stage 1": dict(stage=1), "stage 2": dict(stage=2), "stage 3": dict(stage=3),
        "stage 3, kept": dict(stage=3, keeps_after_forward=True),
        "stage 3, not prefetched": dict(stage=3, prefetches=False),
        "stage 2, once": dict(stage=2, reduces_once=True),
        "stage 3, once": dict(stage=3, reduces_once=True)}
BLOCKS = ("qkv", "twice", "gate_up", "down")


def toy_in(world, *, way="stage 3", is_tied=False, n_micro=1, is_skipped=False, is_hybrid=False,
           mutant=None):
    """Returns what a run of the toy gave. `is_skipped`: all ranks skip a unit in some batches."""
    model = toy.Toy(is_tied=is_tied, seed=world.rank)  # rank 0's weights are given to all
    group, replicate = world, None
    if is_hybrid:
        axes = Mesh(dp=2, replicate=2).on(world)
        group, replicate = axes.dp, axes.replicate
    blocks = [getattr(model, name) for name in BLOCKS + (("extra",) if is_skipped else ())]
    strategy = MUTANTS.get(mutant, Sharded)(model, group, replicate=replicate, blocks=blocks,
                                            **WAYS[way])
    return toy.observed(model, strategy, data=world, n_micro=n_micro,
                        make_batch=skipping if is_skipped else toy.batch,
                        norms=lambda params: norms_over(group, params))


def skipping(step, *, n_micro):
    """The toy's batches, where only the last micro-batch uses `extra`, and in step 1 none does."""
    made = toy.batch(step, n_micro=n_micro)
    return [rows._replace(flags=torch.full_like(rows.flags, step != 1 and rows is made[-1]))
            for rows in made]


def norms_over(group, params):
    """The norms of types 1, 2 and infinity, when each rank of the group has pieces."""
    grads = [p.grad.double() for p in params.values()] or [torch.zeros(1)]
    sums = torch.stack([sum(g.abs().sum() for g in grads), sum(g.square().sum() for g in grads)])
    largest = torch.stack([g.abs().max() for g in grads]).max()
    group.all_reduce(sums)
    group.all_reduce(largest, op="max")
    return float(sums[0]), float(sums[1].sqrt()), float(largest)


def many(world, cases):
    """Returns the results of many runs, by case."""
    return {name: toy_in(world, **case) for name, case in cases.items()}


# --- mutants: each has one of the mistakes that the tests must see --------------------------------


class PaddingInTheNorm(Sharded):
    def finish(self):
        super().finish()
        for flat in self._flats:
            n_owned = sum(n for _, n in flat.spans.values())
            if flat.is_trained and n_owned < flat.n_part:
                padding = nn.Parameter(torch.ones(flat.n_part - n_owned, dtype=torch.float64))
                padding.grad = torch.ones_like(padding)
                self.params[f"{flat.name} padding"] = padding

    def whole(self, pieces):
        return super().whole({n: x for n, x in pieces.items() if not n.endswith("padding")})


class Stale(Sharded):
    def after_step(self):
        pass


class NotRegathered(Sharded):
    def _before_backward(self, micro, unit, place, grad):
        for flat in unit.flats:
            if not flat.is_whole:
                flat._whole.untyped_storage().resize_(flat._whole.nbytes)
                flat._whole.zero_()
                flat._place()
        super()._before_backward(micro, unit, place, grad)


class Overwritten(Sharded):
    def _reduce(self, flat=None):
        if self._reducing is not None:
            self._reducing._grad_part = None
        super()._reduce(flat)


class NotReplicated(Sharded):
    def finish(self):
        self._replicate = None
        super().finish()


class ReducedInBfloat16(Sharded):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for flat in self._flats:
            flat._sum_dtype = torch.bfloat16


class ReplicatedInBfloat16(Sharded):
    def finish(self):
        for flat in self._flats:
            flat._grad_part = flat._grad_part.bfloat16()
        super().finish()


class Averaged(Sharded):
    def finish(self):
        super().finish()
        for p in self.params.values():
            p.grad /= self._group.size


MUTANTS = {"padding in the norm": PaddingInTheNorm, "stale weights": Stale,
           "not regathered": NotRegathered, "overwritten": Overwritten,
           "not replicated": NotReplicated, "averaged": Averaged}
ROUNDED = {None: Sharded, "reduced in bf16": ReducedInBfloat16,
           "replicated in bf16": ReplicatedInBfloat16}


# --- the course's models --------------------------------------------------------------------------


def llama_config(*, is_tied=False, n_layers=3):
    """Sizes that no number of ranks divides."""
    return LlamaConfig(dim=18, n_heads=3, n_kv_heads=1, ffn_dim=21, vocab_size=51, max_seq_len=32,
                       norm_eps=1e-5, rope_theta=1e4, layers=(LayerSpec(),) * n_layers,
                       is_tied=is_tied)


def llama(*, is_tied=False, seed=0):
    torch.manual_seed(seed)
    return Llama(llama_config(is_tied=is_tied)).double()


def llama_loss(model, rows):
    logits = model(rows.ids % 51)
    targets = torch.where(rows.targets == IGNORE, IGNORE, rows.targets % 51)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE,
                           reduction="sum")


def seeing_model():
    """A model with every gate open and its text frozen."""
    torch.manual_seed(0)
    vision = VisionConfig(dim=16, n_heads=2, ffn_dim=32, n_local_layers=2, n_global_layers=1,
                          intermediate_layers=(0,), tile_px=28, patch_px=7, max_tiles=1,
                          aspect_ratios=((1, 1),), norm_eps=1e-5, output_dim=18)
    model = attach(Llama(llama_config(n_layers=2)), vision, cross_layers=(1,)).double()
    for name, p in model.named_parameters():
        if "gate.weight" in name and p.numel() == 1:
            nn.init.constant_(p, 0.5)
    freeze_text(model)
    return model


def seeing_loss(model, rows):
    """Rows with flags have an image; a micro-batch without flags skips the vision tower."""
    ids, images = rows.ids % 51, None
    if rows.flags.any():
        ids = torch.cat([torch.full_like(ids[:, :1], 51), ids[:, 1:]], dim=1)
        pixels = torch.linspace(-1, 1, 3 * 28 * 28, dtype=torch.float64).view(1, 1, 1, 3, 28, 28)
        scale = (1 + ids[:, 1].double()).view(-1, 1, 1, 1, 1, 1)
        images = TiledImages(pixels=torch.sin(pixels * scale),
                             aspect_ids=torch.ones(len(ids), 1, dtype=torch.int64))
    logits = model(ids, images=images)
    targets = torch.where(rows.targets == IGNORE, IGNORE, rows.targets % 51)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE,
                           reduction="sum")


MODELS = {"untied": (llama, llama_loss, toy.batch),
          "tied": (lambda: llama(is_tied=True), llama_loss, toy.batch),
          "seeing": (seeing_model, seeing_loss, skipping)}


def model_in(world, *, model, way, n_micro=2):
    """Returns what a run gave, and the logits before it in evaluation, with how much was held."""
    make, loss, make_batch = MODELS[model]
    with toy.InFloat64():
        model = make()
        strategy = Sharded(model, world, **WAYS[way])
        rows = make_batch(0, n_micro=1)[0]
        with torch.no_grad():
            evaluated = float(loss(model, rows))
        held = sum(flat._whole.untyped_storage().nbytes() for flat in strategy._flats)
        seen = toy.observed(model, strategy, data=world, n_micro=n_micro, loss=loss, n_steps=3,
                            make_batch=make_batch, lr=0.05,
                            norms=lambda params: norms_over(world, params))
    return seen, evaluated, held


def models(world, cases):
    return {case: model_in(world, model=case[0], way=case[1]) for case in cases}


# --- one thing each -------------------------------------------------------------------------------


class ScaledBlock(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.ones(n, dtype=dtype)) for n in (3, 2))

    def forward(self, number):
        return number * (self.a.float().sum() + self.b.float().sum())


def gradients(world, *, numbers, param_dtype=torch.bfloat16, dtypes=(torch.float32,), mutant=None,
              is_hybrid=True, stage=3, first_used=(0,), last_used=None):
    """Returns the whole gradients of weights whose gradient is a number per micro-batch and rank.

    `numbers[rank]`: of each micro-batch. Only the last micro-batch uses the blocks in `last_used`.
    """
    model = nn.Module()
    model.layers = nn.ModuleList(ScaledBlock(dtype) for dtype in dtypes)
    axes = Mesh(dp=2, replicate=2).on(world) if is_hybrid else Mesh(dp=world.size).on(world)
    strategy = ROUNDED[mutant](model, axes.dp, stage=stage, param_dtype=param_dtype,
                               replicate=axes.replicate)
    own = numbers[world.rank]
    for micro, number in enumerate(own):
        is_last = micro == len(own) - 1
        with strategy.micro_batch(is_last=is_last):
            used = last_used if is_last and last_used is not None else first_used
            sum(model.layers[i](number) for i in used).backward()
    strategy.finish()
    found = dict(strategy.whole({n: p.grad for n, p in strategy.params.items()}))
    return {n: (g.dtype, g.tolist()) for n, g in found.items()}


def several_gradients(world, cases):
    return [gradients(world, **case) for case in cases]


def with_tensor_parallel(world):
    """Returns how many elements are added up along `tp` after the step, and the bytes of that."""
    made = shard(Llama(family.tiny("llama-3")), Mesh(dp=2, tp=2).on(world), stage=3,
                 is_sequence_parallel=True, param_dtype=torch.bfloat16)
    rows = toy.batch(0)[0]
    with made.micro_batch(is_last=True):
        made.model(rows.ids).float().square().mean().backward()
    made.finish_gradients()
    n = sum(p.numel() for name, p in made.params.items() if made.slices[name].is_partial)
    return n, sum(call.n_bytes for call in world.log.calls if call.note == "partial gradients")


def uneven(world):
    """Returns whether one huge and 30 tiny tensors survive filling and gathering, and the spans."""
    model = nn.ParameterList([torch.zeros(1000, 3)] + [torch.zeros(1 + i % 3) for i in range(30)])
    weights = {name: torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
               for i, (name, p) in enumerate(model.named_parameters())}
    strategy = Sharded(model, world, stage=3)
    for name, weight in weights.items():
        strategy.fill(name, weight)
    back = dict(strategy.whole(strategy.params))
    is_equal = back.keys() == weights.keys() and all(
        torch.equal(back[n], weights[n]) for n in weights)
    return is_equal, strategy.spans


def bytes_per_step(world, *, way, n_micro, is_hybrid=False, param_dtype=torch.bfloat16):
    """Returns what a second step of a Llama sent, by group and operation, and its notes."""
    model = llama().float()
    axes = (Mesh(dp=2, replicate=2) if is_hybrid else Mesh(dp=world.size)).on(world)
    strategy = Sharded(model, axes.dp, replicate=axes.replicate, param_dtype=param_dtype,
                       **WAYS[way])
    for step in range(2):
        world.log.clear()
        for micro, rows in enumerate(toy.batch(step, n_micro=n_micro)):
            with strategy.micro_batch(is_last=micro == n_micro - 1):
                llama_loss(model, rows.share(world.rank, world.size)).backward()
        strategy.finish()
        strategy.after_step()
    return ({(call.group, call.op): world.log.sent_bytes(call.op, group=call.group)
             for call in world.log.calls}, [call.note for call in world.log.calls])


def several_bytes(world, cases):
    return [bytes_per_step(world, **case) for case in cases]


class Allocations(TorchDispatchMode):
    """Notes the largest tensor that is made."""

    def __init__(self):
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **kwargs or {})
        for x in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(x, torch.Tensor) and x.device.type != "meta":
                self.largest = max(self.largest, x.untyped_storage().nbytes())
        return made


def from_meta(world):
    """Returns the largest tensor in bytes, what is held in the end, and the run of the model."""
    with torch.device("meta"):
        model = Llama(llama_config())
    model.rope = Rope(model.config)
    weights = {name: p.detach() for name, p in llama().float().named_parameters()}
    with Allocations() as allocations:
        strategy = Sharded(model, world, stage=3)
        n_nan = sum(int(p.isnan().sum()) for p in strategy.params.values())
        for name, weight in weights.items():
            strategy.fill(name, weight)
    held = held_bytes(strategy)
    logits = run_without_gradients(model)
    expected = run_without_gradients(llama().float())
    return (allocations.largest, held, n_nan, float((logits - expected).abs().max()),
            bool(torch.isnan(model.norm.weight).all()))


def written(world):
    """Returns what a sharded model writes, token by token, and then a plain one."""
    def fresh():
        torch.manual_seed(0)
        return Llama(family.tiny("llama-3"))

    found = []
    for stage in (1, 3):
        model = fresh()
        Sharded(model, world, stage=stage)
        found.append(generate(model, [1, 2, 3], max_tokens=6))
    return [*found, generate(fresh(), [1, 2, 3], max_tokens=6)]


def run_without_gradients(model):
    with torch.no_grad():
        return model(torch.arange(12).view(2, 6))


def storages(tensors):
    return {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()
            for x in tensors if x is not None and x.untyped_storage().nbytes()}


def held_bytes(strategy):
    """The bytes of all weights and gradients that a rank holds: each memory once."""
    tensors = []
    for flat in strategy._flats:
        tensors += [flat._whole, flat._own, flat._grad, flat._grad_part]
        tensors += [x for p in flat.pieces.values() for x in (p, p.grad)]
        tensors += [p.grad for p in flat.params.values()]
    return sum(storages(tensors).values())


def memory(world, *, way, param_dtype):
    """Returns the bytes of weights and gradients on this rank after the first micro-batch of two,
    after the second, after finish and after the step; their peak; and how many elements it steps.
    """
    model = llama().float()
    strategy = Sharded(model, world, param_dtype=param_dtype, **WAYS[way])
    peak = 0

    def look(*_):
        nonlocal peak
        peak = max(peak, held_bytes(strategy))

    for module in model.layers:
        module.register_forward_hook(look)
        module.register_full_backward_hook(look)
    for step in range(2):
        for micro, rows in enumerate(toy.batch(step, n_micro=2)):
            with strategy.micro_batch(is_last=micro == 1):
                llama_loss(model, rows.share(world.rank, world.size)).backward()
            if micro == 0:
                found = [held_bytes(strategy)]
        found.append(held_bytes(strategy))
        strategy.finish()
        found.append(held_bytes(strategy))
        for p in strategy.params.values():
            p.grad = None
        strategy.after_step()
        found.append(held_bytes(strategy))
    return *found, peak, sum(p.numel() for p in strategy.params.values())


def several_memories(world, cases):
    return {case: memory(world, way=case[0], param_dtype=case[1]) for case in cases}


def unit_sizes(*, n_ranks, is_tied=False):
    """The padded number of parameters of the root and of each block, by the rule."""
    sizes = {}
    for name, p in llama(is_tied=is_tied).named_parameters():
        unit = ".".join(name.split(".")[:2]) if name.startswith("layers.") else "root"
        sizes[unit] = sizes.get(unit, 0) + p.numel()
    return {unit: math.ceil(n / n_ranks) * n_ranks for unit, n in sizes.items()}


def cases_of_the_toy():
    """Each way in a hard case, and stage 3 in all: (way, is it tied, micro-batches)."""
    chosen = [("stage 3", is_tied, n_micro) for is_tied in (False, True) for n_micro in (1, 3)]
    chosen += [("stage 1", True, 3), ("stage 2", False, 3), ("stage 3, kept", True, 3),
               ("stage 3, not prefetched", False, 1), ("stage 2, once", False, 3),
               ("stage 3, once", True, 3)]
    return {f"{way}, {'tied' if is_tied else 'untied'}, {n_micro}": dict(
        way=way, is_tied=is_tied, n_micro=n_micro, is_skipped=is_tied)
        for way, is_tied, n_micro in chosen}


def prefetched(world, *, way):
    """Returns the gathers that had begun when the unit before them ended, in each direction."""
    model = llama()
    strategy = Sharded(model, world, **WAYS[way])
    ended = []
    for i, block in enumerate(model.layers):
        block.register_forward_hook(lambda *_, i=i: ended.append((i, time.perf_counter())))
        block.register_full_backward_hook(lambda *_, i=i: ended.append((i, time.perf_counter())))
    for step in range(2):
        world.log.clear()
        ended.clear()
        with strategy.micro_batch(is_last=True):
            llama_loss(model, toy.batch(step)[0]).backward()
        strategy.finish()
        strategy.after_step()
    began = {}
    for call in sorted(world.log.calls, key=lambda call: call.began_s):
        began.setdefault(call.note, []).append(call.began_s)
    (_, end_0), (_, end_1), _, (_, back_2), (_, back_1), _ = ended
    gathers = [began[f"layers.{i} gather"] for i in range(3)]
    return [gathers[1][0] < end_0, gathers[2][0] < end_1, gathers[1][1] < back_2,
            gathers[0][1] < back_1]
