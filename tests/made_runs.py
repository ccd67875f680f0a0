"""Runs of a store that were not trained: records and curves with given final values, in no time."""

import dataclasses

import numpy as np

from llama_from_scratch.config import LayerSpec, LlamaConfig
from llama_from_scratch.experiments import store
from llama_from_scratch.experiments.curves import Curves
from llama_from_scratch.experiments.experiment import Experiment, Sample
from llama_from_scratch.experiments.running import variants_of
from llama_from_scratch.experiments.store import Store
from llama_from_scratch.experiments.variant import Variant
from llama_from_scratch.train import TrainConfig

TINY = Experiment(
    name="tiny", about="Does it work?",
    model=LlamaConfig(dim=16, n_heads=2, n_kv_heads=1, ffn_dim=16, vocab_size=300, max_seq_len=32,
                      norm_eps=1e-5, rope_theta=1e4, layers=(LayerSpec(),), is_tied=True),
    train=TrainConfig(n_steps=40, batch_size=2, seq_len=16, peak_lr=1e-2, n_warmup=2,
                      validate_every=10, checkpoint_every=40),
    sample=Sample(n_tokens=0))
MACHINE = {"processor": "Abacus 9000", "device": "cpu", "n_threads": 1}


def made(folder, ends, *, base=TINY, replace=None, seeds=None, settings=None, **fields):
    """A variant with a run for each final value, seeds 0, 1, ...; `fields`: of `Run`."""
    seeds = range(len(ends)) if seeds is None else seeds
    variants = variants_of(base, settings=settings or {}, replace=replace, seeds=list(seeds))
    runs = [made_run(Store(folder), variant, end, base=base, **fields)
            for variant, end in zip(variants, ends, strict=True)]
    return Variant(experiment=base.name, name=runs[0].variant, runs=tuple(runs))


def made_run(kept_in, variant, end, *, base=TINY, **fields):
    planned = store.planned(variant, base=base, place=kept_in.place(variant, base=base))
    curves = curve(end, n_steps=variant.train.n_steps)
    metrics = {"loss": end + 0.1, "validation_loss": end, "bits_per_byte": end / 1.5,
               "n_steps": variant.train.n_steps, "seconds": float(curves.seconds[-1])}
    run = dataclasses.replace(planned, **{
        "state": "complete", "metrics": metrics, "machine": MACHINE,
        "code": {"digest": "c0de"}, "versions": {"torch": "2.13"},
        "data": {"digest": "da7a", "files": "f11e"}} | fields)
    store.write(run)
    curves.write(run.folder / "curves.npz")
    return run


def curve(end, *, n_steps=40):
    """Curves that fall from `end` + 3, with a validation every 10 steps."""
    steps = np.arange(1, n_steps + 1)
    loss = end + 3 * (1 - steps / n_steps) ** 2
    checked = steps[9::10]
    return Curves(
        steps=steps, tokens=32 * steps, seconds=0.5 * steps, flops=1e6 * steps, loss=loss,
        grad_norm=1 / steps, lr=np.full(n_steps, 1e-2), validation_steps=checked,
        validation_loss=loss[checked - 1], bits_per_byte=loss[checked - 1] / 1.5)
