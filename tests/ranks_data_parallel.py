"""What the ranks do in the tests of `data_parallel`; functions of a test file cannot travel."""

import contextlib

import torch
import toy_parallel as toy
from torch import nn

from llama_from_scratch.parallel.data_parallel import DataParallel

WAYS = {"one by one": dict(bucket_bytes=0, is_overlapped=False),
        "flat": dict(bucket_bytes=10**12, is_overlapped=False),
        "buckets": dict(bucket_bytes=8000, is_overlapped=True),
        "one by one, overlapped": dict(bucket_bytes=0, is_overlapped=True)}


def trained(world, *, way="buckets", is_tied=False, n_micro=1, mutant=None):
    """Returns what a run gave on this rank, the notes of what was reduced, and the bytes."""
    model = toy.Toy(is_tied=is_tied, seed=world.rank)  # rank 0's weights are given to all
    strategy = MUTANTS.get(mutant, DataParallel)(model, world, **WAYS[way])
    world.log.clear()
    loss = mean_of_means(world) if mutant == "mean of means" else toy.sum_of_losses
    seen = toy.observed(model, strategy, data=world, n_micro=n_micro, loss=loss)
    strategy.close()
    calls = [call for call in world.log.calls if call.note != "loss"]
    return seen, [call.note for call in calls], sum(call.n_bytes for call in calls)


def mean_of_means(world):
    def loss(model, rows):
        mine = torch.tensor(rows.n_targets)
        n_all = world.all_reduce(mine.clone(), note="loss")
        return toy.sum_of_losses(model, rows) / mine * n_all / world.size
    return loss


# --- mutants: each has one of the mistakes that the tests must see --------------------------------


class Averaged(DataParallel):
    def _start(self, bucket):
        bucket.flat /= self.group.size
        super()._start(bucket)


class NotWaitedFor(DataParallel):
    def finish(self):
        last = self.buckets[-1]
        last.fill_gaps()
        too_early = last.flat.clone()
        super().finish()
        if self.group.rank:
            last.flat.copy_(too_early)


class FirstComeFirstSent(DataParallel):
    def _start_full_ones(self):
        for bucket in self.buckets:
            if bucket.pending is None and len(bucket.arrived) == len(bucket.views):
                self._start(bucket)


class SkippedNotReduced(DataParallel):
    def finish(self):
        mine = set().union(*(bucket.filled for bucket in self.buckets))
        super().finish()
        for p in self.params.values():
            if p not in mine:
                p.grad.zero_()


class SentTooEarly(DataParallel):
    @contextlib.contextmanager
    def micro_batch(self, *, is_last):
        is_first = self._n_begun == 0
        with super().micro_batch(is_last=is_first):
            yield
        if is_first:
            for bucket in self.buckets:
                bucket.fill_gaps()
                if bucket.pending is None:
                    self._start(bucket)
                bucket.pending.wait()
                bucket.filled.update(bucket.views)
        self._is_ready = is_last


MUTANTS = {"averaged": Averaged, "not waited for": NotWaitedFor,
           "first come, first sent": FirstComeFirstSent,
           "skipped, not reduced": SkippedNotReduced, "sent too early": SentTooEarly}


# --- one thing each -------------------------------------------------------------------------------


def overlap(world):
    """Returns how many reductions had begun before backward ended, and how many there were."""
    model = toy.Toy()
    strategy = DataParallel(model, world, bucket_bytes=0)
    world.log.clear()
    with strategy.micro_batch(is_last=True):
        rows = toy.batch(0)[0].share(world.rank, world.size)
        loss = toy.sum_of_losses(model, rows)
        with world.log.span("backward"):
            loss.backward()
    strategy.finish()
    (span,) = world.log.spans
    return sum(call.began_s < span.ended_s for call in world.log.calls), len(world.log.calls)


def bfloat16(world):
    """Returns the gradients of a bf16 and an fp32 weight, and how many buckets there are."""
    model = nn.ParameterDict({"narrow": nn.Parameter(torch.ones(2, dtype=torch.bfloat16)),
                              "wide": nn.Parameter(torch.ones(3)),
                              "narrow_too": nn.Parameter(torch.ones(1, dtype=torch.bfloat16))})
    strategy = DataParallel(model, world)
    for number in range(17):  # 256 and then ones: in bf16, 256 + 1 = 256
        with strategy.micro_batch(is_last=number == 16):
            factor = 256.0 if number == 0 and world.rank == 0 else 1.0
            (factor * (model["narrow"].sum() + model["wide"].sum())).backward()
    strategy.finish()
    return {name: p.grad for name, p in model.items()}, [b.flat.dtype for b in strategy.buckets]


def two_models(world):
    """Returns how far two models, trained alternately, are from the same models trained alone."""
    alone = [trained(world, is_tied=is_tied)[0] for is_tied in (False, True)]
    models = [toy.Toy(is_tied=is_tied) for is_tied in (False, True)]
    both = [DataParallel(model, world, bucket_bytes=8000) for model in models]
    steps = [[], []]
    for step in range(3):
        for model, strategy, seen in zip(models, both, steps, strict=True):
            seen += toy.observed(
                model, strategy, data=world, n_steps=1,
                make_batch=lambda _, n_micro, step=step: toy.batch(step, n_micro=n_micro))
    return [toy.distance(a, b) for a, b in zip(steps, alone, strict=True)]


def closed(world):
    """Returns whether a model that was closed computes as if it had never been parallel."""
    model, plain = toy.Toy(), toy.Toy()
    DataParallel(model, world).close()
    world.log.clear()
    rows = toy.batch(0)[0]
    for each in (model, plain):
        toy.sum_of_losses(each, rows).backward()
    return not world.log.calls and all(
        p.grad is q.grad is None or torch.equal(p.grad, q.grad)
        for p, q in zip(model.parameters(), plain.parameters(), strict=True))


def filled(world):
    """Returns what a tied model on the meta device has before and after its weights came."""
    given = dict(toy.Toy(is_tied=True).named_parameters())
    model = toy.Toy(is_tied=True).to("meta")
    model.head.weight = model.embedding.weight
    strategy = DataParallel(model, world)
    is_nan = all(p.isnan().all().item() for p in strategy.params.values())
    for name, weight in given.items():
        strategy.fill(name, weight)
    is_tied = model.head.weight is model.embedding.weight is strategy.params["embedding.weight"]
    is_equal = all(torch.equal(p, given[name]) for name, p in model.named_parameters())
    seen = toy.observed(model, strategy, data=world)
    return is_nan, is_tied, is_equal, seen


def memory(world):
    """Returns the bytes of the buckets, and whether the gradients have any others."""
    model = toy.Toy()
    strategy = DataParallel(model, world, bucket_bytes=8000)
    rows = toy.batch(0)[0].share(world.rank, world.size)
    homes = []
    for is_last in (False, True):
        with strategy.micro_batch(is_last=is_last):
            toy.sum_of_losses(model, rows).backward()
        homes.append({p.grad.untyped_storage().data_ptr() for p in model.parameters()
                      if p.grad is not None})
    strategy.finish()
    buckets = {bucket.flat.untyped_storage().data_ptr() for bucket in strategy.buckets}
    return (sum(bucket.flat.nbytes for bucket in strategy.buckets),
            all(home and home <= buckets for home in homes))


def refusals(world):
    """Returns the messages of all mistakes in using it, by what was done."""
    def new():
        model = toy.Toy()
        return model, DataParallel(model, world)

    def backward(model):
        toy.sum_of_losses(model, toy.batch(0)[0]).backward()

    told = {}

    @contextlib.contextmanager
    def told_as(name):
        try:
            yield
        except (RuntimeError, ValueError) as error:
            told[name] = f"{type(error).__name__}: {error}"

    model, strategy = new()
    with told_as("outside"):
        backward(model)
    model, strategy = new()
    with told_as("no last"):
        with strategy.micro_batch(is_last=False):
            backward(model)
        strategy.finish()
    model, strategy = new()
    with told_as("two backwards"), strategy.micro_batch(is_last=True):
        backward(model)
        backward(model)
    model, strategy = new()
    with told_as("after the last"):
        with strategy.micro_batch(is_last=True):
            backward(model)
        with strategy.micro_batch(is_last=True):
            backward(model)
    strategy.finish()
    with told_as("old gradients"), strategy.micro_batch(is_last=True):
        backward(model)
    with told_as("other name"):
        strategy.fill("nothing", torch.ones(1))
    with told_as("other shape"):
        strategy.fill("scale", torch.ones(3))
    with told_as("negative"):
        DataParallel(toy.Toy(), world, bucket_bytes=-1)
    with told_as("other model"):
        DataParallel(nn.Linear(2, 3 + world.rank, bias=False), world)
    with told_as("other frozen"):
        DataParallel(nn.Linear(2, 3, bias=False).requires_grad_(world.rank == 0), world)
    return told
