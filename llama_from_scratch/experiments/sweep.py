"""Trains many runs at once: every combination of some values, each with several seeds.

`sweep(EXPERIMENT, {"train.peak_lr": [1e-3, 3e-3, 1e-2]}, seeds=3)` uses all cores. Every run is
first written down as planned, and then trained by a worker process with one thread. So the numbers
do not depend on how many workers there are, and nothing that happens to one run disturbs another.
Whatever ends a sweep (an interrupt, a full disk, a kill), the same call does the rest.

Notebook 09.
"""

import contextlib
import dataclasses
import errno
import importlib
import itertools
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_from_scratch.config import record
from llama_from_scratch.experiments import provenance, store
from llama_from_scratch.experiments.experiment import Experiment
from llama_from_scratch.experiments.overview import Overview, Tracker
from llama_from_scratch.experiments.parts import ExchangedPart
from llama_from_scratch.experiments.pool import Pool, moment_of
from llama_from_scratch.experiments.running import ENDED, remembered, variants_of
from llama_from_scratch.experiments.store import Run, Store
from llama_from_scratch.experiments.variant import Variant, grouped, label, told
from llama_from_scratch.files import locked, remove
from llama_from_scratch.train.loop import interrupts_noted
from llama_from_scratch.train.progress import here

_FULL = (errno.ENOSPC, errno.EDQUOT)


@record
class Task:
    """A run to train: `experiment`, which is a change of `base`."""

    experiment: Experiment
    base: Experiment


def sweep(
    experiment: Experiment, grid: Mapping[str, Sequence[Any]], *,
    replace: Mapping[str, Any] | None = None, seeds: int | Sequence[int] = 1,
    kept_in: Store | str | Path | None = None, n_workers: int | None = None,
    is_again: bool = False, show: Callable[[Overview], Any] | None = None,
) -> list[Variant]:
    """Trains every combination of the values of `grid` and returns one variant for each.

    `grid`: values by dotted name, such as `{"train.peak_lr": [1e-3, 3e-3]}`; `{}` is the experiment
    as it is. `n_workers`: how many runs are trained at once; by default one for each core. `show`:
    shows each `Overview`. `replace`, `seeds`, `kept_in`, `is_again`: see `run`. What a part prints
    in a worker is shown only if it is the last line of a process that ended with an error.

    Runs that the store has are not repeated, and runs that were stopped go on. A run that diverges
    or fails is remembered with its reason, and the others go on. After an interrupt, every worker
    finishes its step and saves, and the variants are returned as they are; a second interrupt ends
    the workers at once.
    Raises ValueError before anything is trained for what `run` refuses, for a part that cannot be
    sent to a worker, and if another process sweeps this store. Raises OSError for a full disk.
    """
    tasks = [Task(experiment=one, base=experiment)
             for values in combinations(grid)
             for one in variants_of(experiment, settings=values, replace=replace, seeds=seeds)]
    return grouped(train_all(tasks, kept_in=kept_in, n_workers=n_workers, is_again=is_again,
                             show=show))


def combinations(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Returns every combination of the values. Raises ValueError for no values, or equal ones."""
    for name, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise ValueError(f"a sweep needs a list of values for each setting; {name} got "
                             f"{values!r:.60}. Write [{values!r:.40}] for one value")
        if not values or any(value in values[:i] for i, value in enumerate(values)):
            raise ValueError("a sweep needs at least one value for each setting, each value once; "
                             f"{name} got {list(values)!r:.80}")
    return [dict(zip(grid, chosen, strict=True)) for chosen in itertools.product(*grid.values())]


def train_all(
    tasks: Sequence[Task], *, kept_in: Store | str | Path | None = None,
    n_workers: int | None = None, is_again: bool = False,
    show: Callable[[Overview], Any] | None = None,
) -> list[Run]:
    """Trains these runs, as `sweep` does, and returns them in their order."""
    kept_in = kept_in if isinstance(kept_in, Store) else Store(kept_in)
    n_workers = provenance.usable_cores() if n_workers is None else n_workers
    if n_workers < 1:
        raise ValueError(f"a sweep needs at least one worker; got n_workers={n_workers}")
    places = [kept_in.place(task.experiment, base=task.base) for task in tasks]
    if len(set(places)) < len(places):
        raise ValueError(f"the runs of a sweep must differ; two would be kept in "
                         f"{next(p for p in places if places.count(p) > 1)}. Remove a value that "
                         "is the experiment's own, or a seed")
    packed = [_packed(task, kept_in) for task in tasks]
    try:
        with locked(kept_in.folder, waits=False):
            plans = [_planned(task, kept_in, is_again=is_again) for task in tasks]
            left = [i for i, plan in enumerate(plans) if plan.state not in ENDED]
            _train(tasks, left, packed, plans, n_workers=min(n_workers, len(left)),
                   show=here() if show is None else show)
            return [kept_in.find(plan.folder) or plan for plan in plans]
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise _full(kept_in, places) from error


def _planned(task: Task, kept_in: Store, *, is_again: bool) -> Run:
    """Returns what the store has of a run, or writes it down as planned."""
    planned, found = remembered(task.experiment, base=task.base, kept_in=kept_in)
    if found is not None and not is_again:
        return found
    planned.folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(planned.folder):
        remove(planned.folder)
        store.write(planned)
    return planned


def _train(
    tasks: Sequence[Task], left: Sequence[int], packed: Sequence[bytes], plans: Sequence[Run], *,
    n_workers: int, show: Callable[[Overview], Any],
) -> None:
    """Trains the runs `left` of the tasks. Raises OSError if the disk is full."""
    tracker = Tracker(what=tasks[0].base.name, n_ended=len(tasks) - len(left),
                      n_steps=[tasks[i].experiment.train.n_steps for i in left])
    is_full = False
    show(tracker.now("" if left else "remembered"))
    with interrupts_noted() as is_interrupted, \
            Pool([packed[i] for i in left], n_workers=n_workers) as pool:
        for number, message in pool.messages(is_interrupted):
            if message["kind"] == "step":
                show(tracker.moved(number, moment_of(message["moment"])))
                continue
            if message["kind"] == "stopping":
                show(tracker.now("stopping after the steps in progress; a second interrupt stops "
                                 "at once"))
                continue
            if message.get("errno") in _FULL:
                is_full = True
                pool.stop()
                continue
            run = _ended(plans[left[number]], message, is_stopping=pool.is_stopping)
            if run.state in (*ENDED, "failed"):
                show(tracker.ended(number, f"{label(run)}, seed {run.seed}: {told(run)}"))
    if is_full:
        raise OSError(errno.ENOSPC, "no space is left")
    if is_interrupted():
        show(tracker.now("stopped; the same call does the rest"))


def _ended(plan: Run, message: Mapping[str, Any], *, is_stopping: bool) -> Run:
    """Returns the record of a run that a worker has left, with the reason if it failed."""
    file = plan.folder / "run.json"
    run = store.read(file) if file.exists() else plan  # somebody may delete it meanwhile
    if "error" in message and run.state in ("planned", "running") and not is_stopping:
        run = dataclasses.replace(run, state="failed", error=message["error"])
        store.write(run)
    return run


def _full(kept_in: Store, places: Sequence[Path]) -> OSError:
    n_complete = 0
    for place in places:
        with contextlib.suppress(ValueError):  # a damaged record, which the next call replaces
            run = kept_in.find(place)
            n_complete += run is not None and run.is_complete
    return OSError(errno.ENOSPC, "a sweep needs room on the disk, and the disk of "
                   f"{kept_in.folder} is full; {n_complete} of {len(places)} runs are complete and "
                   "stay so. Free some space, and start the same sweep again, which does the rest")


# --- what a worker gets ---------------------------------------------------------------------------


def _packed(task: Task, kept_in: Store) -> bytes:
    """Returns a task for a worker. Raises ValueError for a part that cannot be sent."""
    try:
        import cloudpickle
    except ImportError as error:
        raise ValueError("a sweep sends its runs to worker processes with the package cloudpickle, "
                         f"which is not installed ({error}). Run `pip install cloudpickle`, or "
                         "train the runs one by one with run()") from error
    parts = {**task.base.parts, **task.experiment.parts}
    with _sent_whole(parts, cloudpickle):
        for name, part in parts.items():
            try:
                cloudpickle.dumps(part)
            except Exception as error:  # anything that the reader's object raises
                raise ValueError(
                    f"a worker process gets a copy of each part, so it must be possible to pickle "
                    f"it; the part {name!r}, {part.name}, cannot be ({error}). Keep open files, "
                    "locks and generators out of it, or use run(), which trains in this process"
                ) from error
        inner = cloudpickle.dumps((task.experiment, task.base, str(kept_in.folder.absolute())))
    return pickle.dumps((list(sys.path), inner))


@contextlib.contextmanager
def _sent_whole(parts: Mapping[str, ExchangedPart], cloudpickle: Any) -> Iterator[None]:
    """Lets the code of parts travel if a new process cannot import it, such as from a file.

    Python's own main module always travels.
    """
    names = {getattr(part.use, "__module__", None) for part in parts.values()}
    modules = [sys.modules[name] for name in names
               if name in sys.modules and name != "__main__" and not _is_importable(name)]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def _is_importable(name: str) -> bool:
    """Returns whether another process with the same `sys.path` finds the module."""
    top = name.partition(".")[0]
    importlib.invalidate_caches()
    return any(finder.find_spec(top, None) is not None for finder in sys.meta_path)
