"""Several steps of a tiny Llama in float64, in one process and on a mesh, to compare every number.

Plain gradient descent without clipping, because AdamW divides a doubled gradient by itself.
"""

import contextlib
import dataclasses

import small_seeing
import torch

from llama_from_scratch import family
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.model.unwritten import unwritten
from llama_from_scratch.parallel.context import tokens_of
from llama_from_scratch.parallel.fresh import fresh_weights
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.shard import shard
from llama_from_scratch.parallel.training import rows_of, total_of
from llama_from_scratch.train.data import IGNORE, Batch
from llama_from_scratch.train.images import image_batch
from llama_from_scratch.train.loop import gradients
from llama_from_scratch.train.parts import TrainParts
from llama_from_scratch.vision.tiles import TiledImages

LR = 0.1
N_STEPS = 3


def config(*, is_tied=False, **changes):
    """A tiny config. `n_kv_heads=1` or 2 has fewer key/value heads than four ranks."""
    tiny = family.tiny("llama-3.2" if is_tied else "llama-3")
    return dataclasses.replace(tiny, **changes)


def model_of(its_config):
    torch.manual_seed(7)
    return Llama(its_config).double()


def batches(vocab_size, *, n_rows=4, seq_len=16):
    """Batches whose rows have very different numbers of targets."""
    draw = torch.Generator().manual_seed(3)
    for step in range(N_STEPS):
        ids = torch.randint(0, vocab_size, (n_rows, seq_len), generator=draw)
        targets = ids.roll(-1, dims=1)
        targets[0, : 5 + step] = IGNORE
        targets[-1, 2:] = IGNORE
        yield Batch(ids=ids, targets=targets, documents=torch.zeros_like(ids),
                    positions=torch.arange(seq_len).expand(n_rows, seq_len).contiguous())


@torch.no_grad()
def descend(params):
    for p in params:
        p -= LR * p.grad
        p.grad = None


def norms(grads):
    """The lengths of all gradients as one vector, for the types 1, 2 and infinity."""
    whole = torch.cat([grad.flatten() for grad in grads])
    return [float(torch.linalg.vector_norm(whole, kind)) for kind in (1.0, 2.0, float("inf"))]


def alone(its_config, *, seq_len=16):
    """What one process computes: for each step the loss, all gradients and their lengths."""
    return _steps_alone(model_of(its_config), batches(its_config.vocab_size, seq_len=seq_len))


def _steps_alone(model, its_batches):
    found = []
    for batch in its_batches:
        loss = gradients(model, batch)
        grads = {name: p.grad.clone() for name, p in model.named_parameters()}
        found.append((loss, grads, norms(grads.values())))
        descend(model.parameters())
    return found


def step_of(sharded, batch, *, micro_batch_size=None):
    """One forward and backward on a mesh; returns the loss of the whole batch."""
    mine = tokens_of(rows_of(batch, sharded.axes.data), sharded.axes.cp)
    parts = dataclasses.replace(TrainParts(), loss=sharded.loss, micro_batch=sharded.micro_batch)
    total = sharded.accumulate(sharded.model, mine.split(micro_batch_size or len(mine.ids)), parts,
                               n_targets=batch.n_targets)
    sharded.finish_gradients()
    return total_of(total, sharded.axes)


def together(world, engine, its_config, sizes, *, micro_batch_size=None, seq_len=16,
             is_from_meta=False, **how):
    """What the ranks of a mesh compute together, on every rank: see `alone`.

    `engine`: `shard` or `shard_natively`. `is_from_meta`: the model never is whole in memory.
    """
    axes = Mesh(**sizes).on(world)
    if is_from_meta:
        model = unwritten(its_config).double()
        how["weights"] = fresh_weights(its_config, seed=7, dtype=torch.float64)
    else:
        model = model_of(its_config)
    return _steps_together(engine(model, axes, **how),
                           batches(its_config.vocab_size, seq_len=seq_len), micro_batch_size)


def _steps_together(sharded, its_batches, micro_batch_size):
    found = []
    for batch in its_batches:
        loss = step_of(sharded, batch, micro_batch_size=micro_batch_size)
        pieces = {name: p.grad for name, p in sharded.params.items()}
        grads = {name: grad.clone() for name, grad in sharded.whole(pieces)}
        lengths = [sharded.gradient_norm(kind) for kind in (1.0, 2.0, float("inf"))]
        found.append((float(loss), grads, [float(length) for length in lengths]))
        descend(sharded.params.values())
        sharded.after_step()
    return found


class Broken(Exception):
    """Raised in the middle of backward."""


def after_an_error(world, stage, *, micro_batch_size=None):
    """Losses and gradient lengths of steps after one that failed, and those without a failure."""
    its_config = config()
    n_micro = 2 // (micro_batch_size or 2)

    def steps(*, fails):
        sharded = shard(model_of(its_config), Mesh(dp=world.size).on(world), stage=stage)
        calls = []

        def count(*_):
            calls.append(None)
            if len(calls) == n_micro and fails:
                raise Broken
        sharded.model.layers[0].register_full_backward_hook(count)
        its_batches = list(batches(its_config.vocab_size))
        if fails:
            with contextlib.suppress(Broken):
                step_of(sharded, its_batches[0], micro_batch_size=micro_batch_size)
        return [(loss, lengths) for loss, _, lengths in
                _steps_together(sharded, its_batches, micro_batch_size)]

    return steps(fails=True), steps(fails=False)


def assert_equal(results, known):
    """Every rank computed what one process computes, and losses and norms have the same bits."""
    for found in results:
        assert largest_difference(found, known) < 1e-12
    for step in range(N_STEPS):
        assert len({(found[step][0], *found[step][2]) for found in results}) == 1


def largest_difference(found, known):
    """The largest difference between two results of `alone` or `together`, norms relative."""
    assert len(found) == len(known) == N_STEPS
    worst = 0.0
    for (loss, grads, lengths), (other, others, other_lengths) in zip(found, known, strict=True):
        assert grads.keys() == others.keys()
        worst = max([worst, abs(loss - other)]
                    + [float((grads[name] - others[name]).abs().max()) for name in grads]
                    + [abs(a / b - 1) for a, b in zip(lengths, other_lengths, strict=True)])
    return worst


# --- a model that sees --------------------------------------------------------------------------


def seeing_model():
    """A VisionLlama in float64 whose gates are open, so that images matter."""
    model = small_seeing.seeing_model(64)
    draw = torch.Generator().manual_seed(5)
    for name, p in model.named_parameters():
        if "gate" in name:
            p.data = 0.5 + torch.rand(p.shape, generator=draw)
    return model.double()


def image_batches(config):
    """Batches in which each row asks about an image of its own."""
    draw = torch.Generator().manual_seed(4)
    for step in range(N_STEPS):
        px = config.vision.tile_px
        images = TiledImages(pixels=torch.randn(4, 1, 1, 3, px, px, generator=draw).double(),
                             aspect_ids=torch.ones(4, 1, dtype=torch.int64))
        prompts = [[config.image_id, *torch.randint(0, 64, (3 + row,), generator=draw).tolist()]
                   for row in range(4)]
        yield image_batch(prompts, [[1, 2 + step], [3], [4, 5, 6], [7]], images=images)


def seeing_alone():
    """As `alone`, for a model that sees."""
    model = seeing_model()
    return _steps_alone(model, image_batches(model.config))


def seeing_together(world, engine, sizes, **how):
    """As `together`, for a model that sees."""
    model = seeing_model()
    return _steps_together(engine(model, Mesh(**sizes).on(world), **how),
                           image_batches(model.config), 1)
