"""The experiments of the course, by name: every training result that it shows comes from one.

`llama experiment run NAME` makes a result again. Baselines in data/experiments were made by
`python data/make_baselines.py`.

Notebook 09.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from llama_from_scratch.config import Experts, LayerSpec, LlamaConfig, nearest, record
from llama_from_scratch.experiments.experiment import Experiment, Sample, TextSource, TokenizerFrom
from llama_from_scratch.experiments.parts import part
from llama_from_scratch.train import TrainConfig
from llama_from_scratch.train.balance import BalancedNats, BiasedSteps


def _llama(
    *, dim: int, ffn_dim: int, n_layers: int, vocab_size: int, max_seq_len: int = 512,
    layer: LayerSpec | None = None,
) -> LlamaConfig:
    """Returns the config of a small Llama with four query heads and two key/value heads."""
    return LlamaConfig(
        dim=dim, n_heads=4, n_kv_heads=2, ffn_dim=ffn_dim, vocab_size=vocab_size,
        max_seq_len=max_seq_len, norm_eps=1e-5, rope_theta=1e4,
        layers=(layer or LayerSpec(),) * n_layers, is_tied=True)


SMALL = Experiment(
    name="small",
    about="What changes when one thing in a small Llama changes? A run takes about 15 seconds.",
    model=_llama(dim=64, ffn_dim=176, n_layers=2, vocab_size=512, max_seq_len=256),
    train=TrainConfig(n_steps=300, batch_size=8, seq_len=64, peak_lr=1e-2, n_warmup=30,
                      validate_every=50, checkpoint_every=300),
    data=TextSource(max_documents=1000, max_validation=40))

STORIES = Experiment(
    name="stories",
    about="What does a model of 400,000 numbers learn from the stories in half a minute?",
    model=_llama(dim=96, ffn_dim=288, n_layers=3, vocab_size=768),
    train=TrainConfig(n_steps=500, batch_size=4, seq_len=128, peak_lr=1e-2, n_warmup=40,
                      validate_every=50, checkpoint_every=500),
    data=TextSource(max_validation=60), tokenizer=TokenizerFrom(max_documents=1000),
    sample=Sample(n_tokens=60, temperature=0.6))

RATES = Experiment(
    name="rates",
    about="How do the learning rate and the size of a batch change a run of 25,600 tokens?",
    model=_llama(dim=48, ffn_dim=144, n_layers=2, vocab_size=768),
    train=TrainConfig(n_steps=100, batch_size=4, seq_len=64, peak_lr=8e-3, n_warmup=10,
                      validate_every=100, checkpoint_every=100),
    data=TextSource(max_validation=10), tokenizer=TokenizerFrom(max_documents=1000),
    sample=Sample(n_tokens=0))

MINI = Experiment(
    name="mini",
    about="How well does a Llama of a million parameters write? It is the one in data/mini.",
    model=_llama(dim=128, ffn_dim=352, n_layers=5, vocab_size=1024),
    train=TrainConfig(n_steps=12_000, batch_size=6, seq_len=384, peak_lr=4e-3, n_warmup=100,
                      validate_every=500, checkpoint_every=500))

FIRST_LIGHT = Experiment(
    name="first-light",
    about="How does the writing of a model of half a million parameters change in a minute? The "
    "README's picture shows it.",
    model=_llama(dim=96, ffn_dim=288, n_layers=4, vocab_size=768),
    train=TrainConfig(n_steps=900, batch_size=4, seq_len=256, peak_lr=6e-3, n_warmup=40,
                      validate_every=60, checkpoint_every=900),
    data=TextSource(max_validation=20), tokenizer=TokenizerFrom(max_documents=1000),
    sample=Sample(n_tokens=55, temperature=0.6))

EXPERTS = Experiment(
    name="experts",
    about="Eight experts in each layer, of which a token uses one: does it learn faster than a "
    "dense model with as many active parameters? What does balancing change?",
    model=_llama(dim=128, ffn_dim=384, n_layers=4, vocab_size=1024, layer=LayerSpec(
        feed_forward=Experts(n_experts=8, n_active=1, width=192, shared_width=192))),
    train=TrainConfig(n_steps=400, batch_size=8, seq_len=128, peak_lr=5e-3, n_warmup=50,
                      validate_every=50, checkpoint_every=400),
    data=TextSource(max_validation=75), tokenizer=TokenizerFrom(max_documents=1000),
    sample=Sample(n_tokens=0))

MIXTURE = Experiment(
    name="mixture",
    about="Which tokens choose which experts in a model that writes stories? It is the one in "
    "data/mixture, trained with a balancing loss.",
    model=_llama(dim=96, ffn_dim=288, n_layers=4, vocab_size=1024, layer=LayerSpec(
        feed_forward=Experts(n_experts=8, n_active=1, width=144, shared_width=144))),
    train=TrainConfig(n_steps=1000, batch_size=6, seq_len=192, peak_lr=5e-3, n_warmup=50,
                      validate_every=500, checkpoint_every=1000),
    data=TextSource(max_validation=75), tokenizer=TokenizerFrom(max_documents=1000),
    parts={"loss": part(BalancedNats(factor=0.01))})

EXPERIMENTS = {experiment.name: experiment
               for experiment in (SMALL, STORIES, RATES, FIRST_LIGHT, EXPERTS, MIXTURE, MINI)}
"""Every named experiment."""


@record
class NamedChange:
    """What a variant of the course changes: settings by dotted name, and parts by name."""

    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    replace: Mapping[str, Any] = dataclasses.field(default_factory=dict)


VARIANTS: Mapping[str, Mapping[str, NamedChange]] = {
    "experts": {
        "dense": NamedChange(settings={"model.layers.feed_forward": None}),
        "loss": NamedChange(replace={"loss": BalancedNats(factor=0.01)}),
        "bias": NamedChange(replace={"balance": BiasedSteps(rate=0.01)}),
    },
}
"""Variants with stored runs, by the names of the experiment and of the change."""


def named(name: str) -> Experiment:
    """Returns the experiment with this name. Raises ValueError with the nearest one."""
    if name not in EXPERIMENTS:
        raise ValueError(f"no experiment is called {name!r:.60}; {nearest(name, EXPERIMENTS)}")
    return EXPERIMENTS[name]
