"""What an experiment is, as data: text, tokenizer, model, training, seed, and exchanged parts.

The record holds everything that decides the numbers of a run. A *variant* is an experiment with
some settings or parts changed, and a *run* is a variant with one seed.

Notebook 09.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from llama_from_scratch.config import LlamaConfig, record
from llama_from_scratch.experiments.parts import ExchangedPart
from llama_from_scratch.train import TrainConfig

STORIES = "stories"
"""The path that stands for the bundled stories."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")


@record
class TextSource:
    """The text of an experiment.

    `path`: a text file or a folder of them, or "stories" for the bundled ones. `separator`: what
    divides a file into documents; None makes each file one document. `suffixes`: which files of a
    folder are read. `validation`: the fraction kept for validation, from the end. `max_documents`,
    `max_validation`: read no more documents than this for training and for validation.
    """

    path: str = STORIES
    separator: str | None = "\n\n"
    suffixes: tuple[str, ...] | None = None
    validation: float = 0.05
    max_documents: int | None = None
    max_validation: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_documents", "max_validation"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"data.{name} must be at least 1, or None; got {value}")
        if not 0 < self.validation < 1:
            raise ValueError("data.validation is a fraction between 0 and 1; "
                             f"got {self.validation}")
        if self.separator == "":
            raise ValueError('data.separator must not be empty. Use "\\n\\n" for blank lines, or '
                             "None to make each file one document")


@record
class TokenizerFrom:
    """Where the tokenizer comes from.

    `path`: a file or folder with a tokenizer; None trains one of `model.vocab_size` tokens on the
    training documents. `max_documents`: train it on no more documents than this.
    """

    path: str | None = None
    max_documents: int | None = None

    def __post_init__(self) -> None:
        if self.max_documents is not None and self.max_documents < 1:
            raise ValueError("tokenizer.max_documents must be at least 1, or None; "
                             f"got {self.max_documents}")


@record
class Sample:
    """The text that the model writes at each validation, so that a reader sees it learn.

    `n_tokens`: 0 writes nothing.
    """

    prompt: str = "One day"
    n_tokens: int = 40
    temperature: float = 0.7
    top_p: float | None = 0.95

    def __post_init__(self) -> None:
        if self.n_tokens < 0:
            raise ValueError(f"sample.n_tokens must be at least 0; got {self.n_tokens}")
        if not 0 <= self.temperature < math.inf:
            raise ValueError("sample.temperature must be at least 0 and finite; "
                             f"got {self.temperature}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError("sample.top_p is a probability above 0 and at most 1, or None; "
                             f"got {self.top_p}")


@record
class Experiment:
    """A question to training, and everything that decides the numbers of its runs.

    `about`: the question, in words. `seed`: decides the fresh weights and the order of the data,
    so `train.seed` stays 0. `parts`: what replaces parts of the model and of the step, by name; see
    `experiments.parts`. Raises ValueError for a name that is no plain word, for `train.seed`, and
    for windows that do not fit into the model's context.
    """

    name: str
    about: str
    model: LlamaConfig
    train: TrainConfig
    data: TextSource = TextSource()
    tokenizer: TokenizerFrom = TokenizerFrom()
    sample: Sample = Sample()
    seed: int = 0
    parts: Mapping[str, ExchangedPart] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError("the name of an experiment is the name of its folder: lowercase "
                             f"letters, digits, - and _, at most 41; got {self.name!r:.80}")
        if self.train.seed:
            raise ValueError("an experiment has one seed, for the weights and for the order of the "
                             f"data; got train.seed={self.train.seed}. Set `seed`")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"a seed is a whole number from 0 to 2^32 - 1; got {self.seed}")
        if self.train.seq_len > self.model.max_seq_len:
            raise ValueError("a window must fit into the model's context; got train.seq_len="
                             f"{self.train.seq_len}, model.max_seq_len={self.model.max_seq_len}. "
                             "Change one of them")


def described(experiment: Experiment) -> dict[str, Any]:
    """Returns the parts that are exchanged, ready for JSON: by name, what and with which source."""
    return {name: part.described() for name, part in sorted(experiment.parts.items())}
