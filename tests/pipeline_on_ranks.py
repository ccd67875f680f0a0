"""Steps of a tiny Llama through a pipeline, on ranks of the tests, to compare with one process."""

import dataclasses

import on_ranks
import parity
import torch
from parity import batches, config, model_of

from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.pipeline import mail, run, stage
from llama_from_scratch.train.loop import gradients
from llama_from_scratch.train.loss import sum_of_nats

on_ranks.by_value(__name__)
on_ranks.by_value(parity.__name__)


def deep_config(n_layers=4, **how):
    """The config of `parity` with that many layers."""
    its_config = config(**how)
    return dataclasses.replace(its_config, layers=its_config.layers[:1] * n_layers)


def alone(its_config):
    """The loss and the gradients of the first batch, in one process."""
    model = model_of(its_config)
    loss = gradients(model, next(iter(batches(its_config.vocab_size))))
    return loss, {name: p.grad for name, p in model.named_parameters()}


class Given:
    """A plan with this schedule, whatever the number of micro-batches."""

    def __init__(self, schedule, *, recomputes):
        self.schedule, self.recomputes, self.n_chunks = schedule, recomputes, schedule.n_chunks
        self.splits_backward = schedule.splits_backward

    def on(self, n_ranks, *, n_micro_batches):
        return self.schedule


def through_pipeline(world, its_config, schedule, counts, *, recomputes=False, micro_rows=1,
                     change=None):
    """The loss, this rank's gradients, the validation, the most passes in flight, the names of the
    spans in the log, and how often each operation was called. `change(pipeline)` may break it."""
    axes, model = Mesh(pp=world.size).on(world), model_of(its_config)
    own = stage.keep(model, stage.pieces_of(counts), rank=axes.pp.rank, n_ranks=world.size)
    pipeline = run.PipelineRank(
        model, own, axes.pp, plan=Given(schedule, recomputes=recomputes),
        channels=mail.channels(axes, n_chunks=schedule.n_chunks), stream_dtype=torch.float64)
    pipeline.split_backward()
    batch = next(iter(batches(its_config.vocab_size)))
    if change is not None:
        change(pipeline)
    world.log.clear()
    total = pipeline.step(batch.split(micro_rows), loss=sum_of_nats, n_targets=batch.n_targets)
    counts, spans = world.log.counts(), [span.name for span in world.log.spans]
    validation = pipeline.loss(batch, loss=sum_of_nats) / batch.n_targets
    grads = {name: p.grad for name, p in model.named_parameters()}
    return dict(loss=float(total), grads=grads, validation=float(validation), spans=spans,
                most_in_flight=pipeline.most_in_flight, counts=counts,
                sent_bytes=world.log.sent_bytes("send"))
