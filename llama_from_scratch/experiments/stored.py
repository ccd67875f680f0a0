"""The stored runs of the course in which something is changed, by the name of the change.

`stored(named("experts"), "dense")` returns them without training anything. `baseline` returns the
unchanged ones. Runs of models with experts also have a file that says which experts the tokens of
the validation text went to.

Notebook 23.
"""

from pathlib import Path

from llama_from_scratch import bundled
from llama_from_scratch.config import nearest
from llama_from_scratch.experiments.experiment import Experiment
from llama_from_scratch.experiments.named import VARIANTS
from llama_from_scratch.experiments.running import variants_of
from llama_from_scratch.experiments.settings import settings
from llama_from_scratch.experiments.store import Run, Store
from llama_from_scratch.experiments.variant import Variant
from llama_from_scratch.train.expert_use import ExpertUse

EXPERT_USE = "expert_use.npz"
"""The file of a run that holds its `ExpertUse` on the validation text."""


def stored(
    experiment: Experiment, change: str, *, kept_in: Store | str | Path | None = None
) -> Variant:
    """Returns the stored runs of a change of the course, one of `named.VARIANTS`.

    `kept_in`: the store they are saved in, by default data/experiments of this repository.
    Raises ValueError for an unknown change, and if the store does not have it as it is now.
    """
    known = VARIANTS.get(experiment.name, {})
    if change not in known:
        hint = nearest(str(change), known) if known else "it has none"
        raise ValueError(f"no stored change of {experiment.name} is called {change!r:.60}; {hint}")
    what = known[change]
    wanted, = variants_of(experiment, settings=what.settings, replace=what.replace,
                          seeds=[experiment.seed])
    kept_in = bundled.path("experiments") if kept_in is None else kept_in
    kept_in = kept_in if isinstance(kept_in, Store) else Store(kept_in)
    place = kept_in.place(wanted, base=experiment).parent
    runs, _ = kept_in.runs(experiment.name)
    found = tuple(run for run in runs if run.folder.parent == place
                  and _without_seed(run.settings) == _without_seed(settings(wanted)))
    if not found:
        raise ValueError(f"stored runs must have the settings and parts of the change; {place} has "
                         f"no such run of {change!r}. Make them again with `python "
                         f"data/make_baselines.py {experiment.name}`")
    return Variant(experiment=experiment.name, name=place.name, runs=found)


def expert_use(run: Run) -> ExpertUse:
    """Returns which experts the tokens of the validation text went to, in a stored run.

    Raises ValueError for a run without the file.
    """
    return ExpertUse.read(run.folder / EXPERT_USE)


def _without_seed(plain) -> dict:
    return {name: value for name, value in plain.items() if name != "seed"}
