"""Runs that save in parts, for the ranks of the tests, and the meshes that every such test goes to.

Everything is in float64, so that losses are equal to 1e-12 whatever the order of additions is.
"""

import contextlib
import dataclasses
import os
import signal
import threading
import time
from pathlib import Path

import torch
from llama4_twin import toy
from tiny_runs import BYTES, CONFIG, DATA, make

from llama_from_scratch.checkpoint import native
from llama_from_scratch.checkpoint.sharded import manifest, shard_file
from llama_from_scratch.checkpoint.sharded.region import Region
from llama_from_scratch.checkpoint.sharded.saved import SavedPieces
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.parallel import saving
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.native import shard_natively
from llama_from_scratch.parallel.saving import Saver
from llama_from_scratch.parallel.shard import shard
from llama_from_scratch.parallel.training import parts_on
from llama_from_scratch.train import resume
from llama_from_scratch.train.loop import train
from llama_from_scratch.train.optimizer import decay_groups

MESHES = {
    "dp4": (shard, dict(dp=4), dict(stage=0)),
    "zero3": (shard, dict(dp=4), dict(stage=3)),
    "tp4": (shard, dict(tp=4), {}),
    "tp2 x dp2, stage 1": (shard, dict(tp=2, dp=2), dict(stage=1)),
    "tp2 x dp2, stage 2": (shard, dict(tp=2, dp=2), dict(stage=2)),
    "tp2 x dp2, stage 3": (shard, dict(tp=2, dp=2), dict(stage=3)),
    "replicate2 x dp2": (shard, dict(replicate=2, dp=2), dict(stage=3)),
    "native tp2 x dp2": (shard_natively, dict(tp=2, dp=2), dict(stage=3)),
    "pp2 x dp2": (shard, dict(pp=2, dp=2), dict(stage=3)),
    "pp2 x tp2": (shard, dict(pp=2, tp=2), {}),
}
"""The meshes of four ranks: how a model is put onto each. More kinds of meshes belong here."""
EXPERTS = {
    "experts, dp4": (shard, dict(dp=4), dict(stage=2)),
    "experts, ep4": (shard, dict(dp=4, ep=4), dict(stage=0)),
    "experts, ep2": (shard, dict(dp=4, ep=2), dict(stage=3)),
    "experts, pp2 x ep2": (shard, dict(pp=2, dp=2, ep=2), dict(stage=3)),
}
"""The same for a model with experts."""
RUN = dataclasses.replace(CONFIG, n_steps=4, checkpoint_every=2, validate_every=4,
                          micro_batch_size=1, seq_len=16)


def model_of(name="", *, seed=0):
    """The tiny model with a tied head, or one with experts for a mesh of `EXPERTS`."""
    if name not in EXPERTS:
        return make(seed=seed, is_tied=True, vocab_size=260).double()
    torch.manual_seed(seed)
    return Llama(toy(step=2, n_layers=2, vocab_size=260)).double()


def on_mesh(world, name, *, seed=0):
    """The tiny model on a mesh of the table."""
    engine, sizes, how = (MESHES | EXPERTS)[name]
    axes = kept(world, f"axes {sizes}", lambda: Mesh(**sizes).on(world))
    return engine(model_of(name, seed=seed), axes, **how)


def kept(world, name, make):
    """What all tests on these ranks share, because it makes groups, which stay."""
    if name not in vars(world.kept):
        setattr(world.kept, name, make())
    return getattr(world.kept, name)


def saver_of(world):
    return kept(world, "saver", lambda: Saver(world))


def run(world, name, folder, *, n_steps=4, is_resumed=False, saves_in_parts=True, seed=0):
    """Trains on a mesh up to `n_steps`; returns the losses and the lengths of the gradients."""
    sharded = on_mesh(world, name, seed=seed)
    saver = saver_of(world) if saves_in_parts else None

    def stop(step):
        if step.step + 1 == n_steps and world.rank == 0:
            os.kill(os.getpid(), signal.SIGINT)

    history = train(sharded.model, DATA, config=RUN, folder=folder, is_resumed=is_resumed,
                    on_step=stop, parts=parts_on(sharded, saver=saver))
    return history.losses, [step.grad_norm for step in history.steps]


def alone(folder=None, *, name="", is_resumed=False, seed=0):
    """The same in one process."""
    history = train(model_of(name, seed=seed), DATA, config=RUN, folder=folder,
                    is_resumed=is_resumed)
    return history.losses, [step.grad_norm for step in history.steps]


@torch.no_grad()
def loaded(world, name, folders):
    """What differs on a mesh after loading each checkpoint, and the loss of a batch after the last.

    What a rank holds is compared with what it would keep of each whole tensor.
    """
    sharded, wrong = on_mesh(world, name, seed=1), []
    parts, batch = parts_on(sharded), DATA.batch(0, batch_size=4, seq_len=16, seed=0)
    optimizer = parts.make_optimizer(decay_groups(sharded.model, weight_decay=0.1), RUN)
    ongoing = resume.OngoingRun(model=sharded.model, optimizer=optimizer, config=RUN, data=DATA,
                                validation=None)
    for folder in folders:
        for p in [*sharded.weights.values(), *optimizer.state_dict().values()]:
            p.fill_(-1)
        parts.begin(ongoing, folder, is_resumed=True)
        saved = SavedPieces(Path(folder), known=None)
        here = {manifest.MODEL + key: (key, x) for key, x in sharded.weights.items()}
        here |= {manifest.OPTIMIZER + key: (optimizer.name_in(key), x)
                 for key, x in optimizer.state_dict().items()}
        for key, (own, x) in here.items():
            whole = saved.whole(key)
            known = whole if own is None else sharded.piece(own, whole)
            if not torch.equal(x, known):
                wrong.append((str(folder), key))
    return wrong, float(sharded.loss(sharded.model, batch, is_bf16=False))


# --- pieces without a model -----------------------------------------------------------------------


def uneven(world):
    """One huge tensor and thirty tiny ones, of which the ranks hold very different parts."""
    held = {}
    huge, tiny = torch.arange(40_000.0), torch.arange(30.0)
    first, n = [(0, 39_000), (39_000, 990), (39_990, 10), (0, 0)][world.rank]
    held["model.huge"] = (huge.view(200, 200).reshape(-1)[first : first + n],
                          Region.whole((200, 200)).span(first, n))
    for i in range(30):
        if world.rank == 3 or i % 7 == world.rank:  # copies of some
            held[f"model.tiny.{i}"] = tiny[i : i + 1].clone(), Region.whole((1,))
    return held


def describe(folder):
    native.write_description(folder, make(), tokenizer=BYTES)


def save_uneven(world, folder):
    """Saves, overwrites the tensors at once, and saves again what is there then."""
    saver, pieces = saver_of(world), uneven(world)
    saver.save(Path(folder, "first"), pieces, describe=describe)
    for tensor, _ in pieces.values():
        tensor += 1000
    saver.save(Path(folder, "second"), pieces, describe=describe)
    saver.wait()
    return {name: held.region.n for name, held in saver._plan[world.rank].items()}


@contextlib.contextmanager
def slow_disk(seconds, *, fails=False):
    """A disk that takes long for each file, and may then be full."""
    true = shard_file.write

    def write(path, tensors, **how):
        time.sleep(seconds)
        if fails:
            raise OSError(28, "No space left on device")
        return true(path, tensors, **how)

    saving.shard_file.write = write
    try:
        yield
    finally:
        saving.shard_file.write = true


def while_it_writes(world, folder):
    """How many collectives the ranks can do while a save goes on; none of the save's is among."""
    saver, pieces, n_done = saver_of(world), uneven(world), 0
    with slow_disk(0.5 if world.rank == 2 else 0.0):
        world.log.clear()
        saver.save(folder, pieces, describe=describe)
        is_open = torch.ones(1)
        while is_open.item():
            n_done += 1
            is_open = torch.tensor([float(saver._thread.is_alive())])
            world.all_reduce(is_open, op="max")
        saver.wait()
    return n_done, len(world.log.calls)


def failing(world, folder):
    """What a run raises on each rank if the disk of rank 2 is full in the second save."""
    sharded, saver = on_mesh(world, "zero3"), saver_of(world)
    parts, n_saves = parts_on(sharded, saver=saver), []

    def save(*args, **how):
        n_saves.append(None)
        with slow_disk(0.0, fails=len(n_saves) == 2 and world.rank == 2):
            parts.save(*args, **how)
            saver._thread.join()  # so that the disk is repaired for the next save

    try:
        train(sharded.model, DATA, config=dataclasses.replace(RUN, checkpoint_every=1),
              folder=folder, parts=dataclasses.replace(parts, save=save))
    except OSError as error:
        return type(error).__name__, str(error), len(n_saves)
    return None


def die_in_save(world, folder, *, rank, stage):
    """Trains; a rank kills itself in its second save, before a stage of it.

    The stages are: 1 a new folder, 2 the files, 3 the manifest, 4 the rename.
    """
    true, n_calls = saving.together, []

    def together(group, work):
        if threading.current_thread() is not threading.main_thread():
            n_calls.append(None)
            if world.rank == rank and len(n_calls) == 4 + stage:
                os.kill(os.getpid(), signal.SIGKILL)
        return true(group, work)

    saving.together = together
    run(world, "zero3", folder)
