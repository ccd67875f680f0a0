"""What the ranks do in the tests of `costs`: one real step of each plan."""

import dataclasses

import llama4_twin
import parity
import torch

from llama_from_scratch import family
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.parallel.costs import Plan, traffic_bytes
from llama_from_scratch.parallel.data_parallel import DataParallel
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.shard import shard
from llama_from_scratch.train.data import Batch

SINGLE_NUMBERS = ("loss", "gradient norm", "")


def config(*, is_tied=False, **changes):
    """A tiny config."""
    tiny = family.tiny("llama-3.2" if is_tied else "llama-3")
    return dataclasses.replace(tiny, **changes)


def with_experts():
    """A tiny config with experts in its second layer."""
    return llama4_twin.toy(step=2, n_layers=2)


def batch_for(plan: Plan) -> Batch:
    """A batch of random ids for all ranks of the plan."""
    n_rows = plan.n_rows * plan.n_micro_batches * plan.mesh.dp * plan.mesh.replicate
    ids = torch.randint(0, plan.config.vocab_size, (n_rows, plan.seq_len),
                        generator=torch.Generator().manual_seed(0))
    return Batch(ids=ids, targets=ids.roll(-1, dims=1), documents=torch.zeros_like(ids),
                 positions=torch.arange(plan.seq_len).expand(n_rows, -1).contiguous())


def logged(world, plans: list[Plan]):
    """Returns what this rank sent in the second step of each plan, by (group, operation)."""
    return [_logged(world, plan) for plan in plans]


def _logged(world, plan: Plan):
    torch.manual_seed(0)
    model = Llama(plan.config).to(plan.weight_dtype)
    how = {} if plan.stage == 0 else dict(param_dtype=plan.compute_dtype,
                                          keeps_after_forward=plan.keeps_after_forward)
    sharded = shard(model, plan.mesh.on(world), stage=plan.stage, **how,
                    is_sequence_parallel=plan.is_sequence_parallel)
    sent, seen = {}, []
    for _ in range(2):
        world.log.clear()
        seen.clear()
        rows = parity.rows_of(batch_for(plan), sharded.axes.data)
        micros = rows.split(plan.n_rows)
        for number, micro in enumerate(micros, 1):
            with (sharded.micro_batch(is_last=number == len(micros)),
                  sharded.experts.watched() as travelled):
                sharded.loss(sharded.model, micro, is_bf16=plan.is_bf16).backward()
            seen += [each for passes in travelled.values() for each in passes]
        sharded.finish_gradients()
        sharded.clip(1.0)
        parity.descend(sharded.params.values())
        sharded.after_step()
        sent = {}
        for call in world.log.calls:
            if call.note not in SINGLE_NUMBERS:
                key = call.group, call.op
                sent[key] = sent.get(key, 0) + call.sent_bytes
    if seen:
        sent["by the traffic"] = sum(traffic_bytes(plan, each)[sharded.axes.ep.rank]
                                     for each in seen)
    return sent


def held(world, plan: Plan):
    """Returns the bytes of a data-parallel rank: weights, gradients with two micro-batches, and
    gradients when they are complete."""
    model = Llama(plan.config).to(plan.weight_dtype)
    strategy = DataParallel(model, Mesh(dp=world.size).on(world).data)
    mine = parity.rows_of(batch_for(plan), world)
    for number, micro in enumerate(mine.split(plan.n_rows), 1):
        with strategy.micro_batch(is_last=number == plan.n_micro_batches):
            logits = micro.logits(model)
            logits.logsumexp(-1).sum().backward()
        if number == 1:
            between = _storage(strategy)
    strategy.finish()
    weights = sum(p.nbytes for p in model.parameters())
    return weights, between, _storage(strategy)


def _storage(strategy) -> int:
    """The bytes of all gradients, each memory once."""
    tensors = [bucket.flat for bucket in strategy.buckets]
    tensors += [p.grad for p in strategy.params.values() if p.grad is not None]
    return sum({x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()
                for x in tensors}.values())
