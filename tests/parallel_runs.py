"""Runs of `train` on a mesh, for the ranks of the tests."""

import dataclasses
import os
import signal

from tiny_runs import CONFIG, DATA, make

from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.native import shard_natively
from llama_from_scratch.parallel.shard import shard
from llama_from_scratch.parallel.training import parts_on
from llama_from_scratch.train.loop import train
from llama_from_scratch.train.loss import sum_of_nats

ENGINES = {"own": shard, "native": shard_natively}


def run(world, sizes, *, engine="own", folder=None, is_resumed=False, stops_after=None,
        validates=False, changes=None, frozen=(), seed=0, parts=None, **how):
    """Trains the tiny model on a mesh; returns its losses, gradient lengths and validations."""
    axes, config = Mesh(**sizes).on(world), dataclasses.replace(CONFIG, **(changes or {}))
    model = make(seed=seed)
    for name, p in model.named_parameters():
        p.requires_grad_(name not in frozen)
    sharded = ENGINES[engine](model, axes, **how)

    def on_step(step):
        if step.step + 1 == stops_after and world.rank == 1:
            os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C reaches one process only

    history = train(sharded.model, DATA, config=config, validation=DATA if validates else None,
                    parts=parts_on(sharded, parts), folder=folder, is_resumed=is_resumed,
                    on_step=on_step)
    weights = {name: weight.clone() for name, weight in sharded.whole(sharded.weights)}
    validations = [evaluation.loss for _, evaluation in history.validations]
    return (history.losses, [step.grad_norm for step in history.steps], validations,
            weights if world.rank == 0 else None, history.is_complete, history.n_tokens)



def doubled(model, batch, *, is_bf16):
    """A loss of the reader."""
    return 2 * sum_of_nats(model, batch, is_bf16=is_bf16)
