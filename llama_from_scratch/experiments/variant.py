"""A variant of an experiment: some settings or parts changed, and its runs, one per seed.

Notebook 09.
"""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from llama_from_scratch.config import record
from llama_from_scratch.experiments.settings import short_names
from llama_from_scratch.experiments.store import UNCHANGED, Run
from llama_from_scratch.foreign import plain


@record
class Variant:
    """An experiment with some settings or parts changed, and its runs, one per seed."""

    experiment: str
    name: str
    runs: tuple[Run, ...]

    @property
    def difference(self) -> Mapping[str, Any]:
        """The settings that differ from the experiment's own."""
        return self.runs[0].difference

    @property
    def parts(self) -> Mapping[str, Any]:
        """What was exchanged, with its source text, by the name of the part."""
        return self.runs[0].parts

    @property
    def label(self) -> str:
        """What differs, for a legend: "peak_lr=0.003", or "baseline" if nothing does."""
        return label(self.runs[0])

    def finals(self, metric: str = "validation_loss") -> list[float]:
        """Returns the final value of a metric of each complete run."""
        return [run.metrics[metric] for run in self.runs
                if run.is_complete and metric in run.metrics]

    def __repr__(self) -> str:
        rows = [f"{self.experiment} · {self.label}"]
        rows += [f"  seed {run.seed}: {told(run)}" for run in self.runs]
        rows += [f"  {note}" for note in dict.fromkeys(
            note for run in self.runs for note in run.notes)]
        return "\n".join(rows)


def label(run: Run) -> str:
    """Returns what differs from the experiment, in a few words."""
    short = short_names(run.difference)
    words = [f"{short[name]}={spelled(value)}" for name, value in run.difference.items()]
    words += [f"{name}={part['name']}" for name, part in run.parts.items()]
    return ", ".join(words) or UNCHANGED


def told(run: Run) -> str:
    """Returns the result of a run in one line: its state, and its final numbers if it has any."""
    if run.is_complete:
        if "validation_loss" in run.metrics:
            return (f"validation loss {run.metrics['validation_loss']:.3f}, "
                    f"{run.metrics['bits_per_byte']:.3f} bits per byte")
        return f"training loss {run.metrics['loss']:.3f}"
    return f"{run.state}: {run.error}" if run.error else run.state


def spelled(value: Any) -> str:
    """Returns a setting's value for people: 0.003, stories, and a line end as an escape."""
    return f"{value:g}" if isinstance(value, float) else plain(value)


def grouped(runs: Iterable[Run]) -> list[Variant]:
    """Returns the variants that these runs belong to, in the order of their first runs."""
    def key(run: Run) -> tuple[str, str]:
        return run.experiment, run.variant

    runs, places = list(runs), {}
    for one in runs:
        places.setdefault(key(one), len(places))
    ordered = sorted(runs, key=lambda run: (places[key(run)], run.seed))
    return [Variant(experiment=pair[0], name=pair[1], runs=tuple(group))
            for pair, group in itertools.groupby(ordered, key=key)]
