"""Makes the task of a run from its record, so that it can be trained in another process or later.

Notebook 09.
"""

import dataclasses

from llama_from_scratch.experiments import parts as exchange
from llama_from_scratch.experiments.experiment import Experiment
from llama_from_scratch.experiments.named import EXPERIMENTS
from llama_from_scratch.experiments.settings import changed, settings
from llama_from_scratch.experiments.store import Run
from llama_from_scratch.experiments.sweep import Task


def task_of(run: Run, *, own: Experiment | None = None) -> Task:
    """Returns what trains a run of a named experiment, or of `own`, an experiment of the reader.

    Raises ValueError, naming the run and the cure, if its experiment is not known or has changed
    since, and for a part that is only in a notebook or has changed.
    """
    bases = EXPERIMENTS | ({} if own is None else {own.name: own})
    where = f"{run.experiment}/{run.variant}/seed-{run.seed}"
    if run.experiment not in bases:
        raise ValueError(f"{where} belongs to an experiment that is not one of the course's. Give "
                         "it with --from FILE.py:NAME, or run it again where it is defined")
    base = bases[run.experiment]
    parts = {name: _part(name, given, where=where) for name, given in run.parts.items()}
    one = dataclasses.replace(changed(base, run.difference), seed=run.seed, parts=parts)
    if settings(one) != dict(run.settings):
        differing = next(name for name, value in settings(one).items()
                         if run.settings.get(name) != value)
        raise ValueError(f"{where} was planned with another {differing}: "
                         f"{run.settings.get(differing)!r:.60}, now "
                         f"{settings(one)[differing]!r:.60}. Delete it, or run it again")
    return Task(experiment=one, base=base)


def _part(name: str, given: dict[str, str], *, where: str) -> exchange.ExchangedPart:
    if not given["origin"]:
        raise ValueError(f"{where} uses the {name} {given['name']}, which was written in a "
                         "notebook or a script. Run the cell or the script again, which "
                         "continues it")
    found = exchange.part(given["origin"])
    if found.described()["digest"] != given["digest"]:
        raise ValueError(f"{where} uses the {name} {given['origin']}, whose text has changed "
                         "since. Delete it, or run it again with the new text")
    return found
