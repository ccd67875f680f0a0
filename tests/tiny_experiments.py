"""An experiment whose run takes a fraction of a second, for tests of everything around runs."""

from pathlib import Path

from llama_from_scratch.config import LayerSpec, LlamaConfig
from llama_from_scratch.experiments.experiment import Experiment, Sample, TextSource
from llama_from_scratch.experiments.settings import changed
from llama_from_scratch.train import TrainConfig

STORIES = [f"The {who} saw a {what}. The {what} saw the {who}, and both ran home."
           for who in ("cat", "dog", "old owl") for what in ("mouse", "cow", "very small bee")]


def tiny(folder, **settings):
    """Returns a tiny experiment on a text in `folder`, with these settings changed by dotted name.

    It trains for six steps, validates after the third and the last, and samples two tokens. Its
    vocabulary is 256 bytes, the two ends and six merges.
    """
    text = Path(folder) / "stories.txt"
    if not text.exists():
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("\n\n".join(STORIES), encoding="utf-8")
    experiment = Experiment(
        name="tiny", about="Does it work?",
        model=LlamaConfig(dim=16, n_heads=2, n_kv_heads=1, ffn_dim=32, vocab_size=264,
                          max_seq_len=32, norm_eps=1e-5, rope_theta=1e4, layers=(LayerSpec(),),
                          is_tied=True),
        train=TrainConfig(n_steps=6, batch_size=2, seq_len=16, peak_lr=1e-2, n_warmup=2,
                          validate_every=3, checkpoint_every=2),
        data=TextSource(path=str(text), validation=0.2),
        sample=Sample(prompt="The", n_tokens=2))
    return changed(experiment, settings)
