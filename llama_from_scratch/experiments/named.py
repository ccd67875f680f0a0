"""The experiments of the course, by name: every training result that it shows comes from one.

`llama experiment run NAME` makes a result again. Baselines in data/experiments were made by
`python data/make_baselines.py`.

Notebook 09.
"""

from llama_from_scratch.config import LayerSpec, LlamaConfig, nearest
from llama_from_scratch.experiments.experiment import Experiment, Text
from llama_from_scratch.train import TrainConfig

SMALL = Experiment(
    name="small",
    about="What changes when one thing in a small Llama changes? A run takes about 15 seconds.",
    model=LlamaConfig(
        dim=64, n_heads=4, n_kv_heads=2, ffn_dim=176, vocab_size=512, max_seq_len=256,
        norm_eps=1e-5, rope_theta=1e4, layers=(LayerSpec(),) * 2, is_tied=True),
    train=TrainConfig(n_steps=300, batch_size=8, seq_len=64, peak_lr=1e-2, n_warmup=30,
                      validate_every=100, checkpoint_every=300),
    data=Text(max_documents=1000, max_validation=40))

EXPERIMENTS = {experiment.name: experiment for experiment in (SMALL,)}
"""Every named experiment."""


def named(name: str) -> Experiment:
    """Returns the experiment with this name. Raises ValueError with the nearest one."""
    if name not in EXPERIMENTS:
        raise ValueError(f"no experiment is called {name!r:.60}; {nearest(name, EXPERIMENTS)}")
    return EXPERIMENTS[name]
