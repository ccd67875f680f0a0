"""Where runs are remembered: plain files that a person can read, one folder per run.

    STORE/EXPERIMENT/VARIANT/seed-0/run.json      settings, parts, code, machine, metrics, samples
                                   /curves.npz    the measurements of each step
                                   /checkpoint/   the model, its tokenizer and the optimizer

A variant's folder is named after what differs from the experiment, so two people's stores can be
copied into each other. Nothing leaves the machine.

Notebook 09.
"""

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llama_from_scratch import bundled, foreign
from llama_from_scratch.config import nearest, record
from llama_from_scratch.experiments.curves import Curves
from llama_from_scratch.experiments.experiment import Experiment, described
from llama_from_scratch.experiments.settings import difference, settings, short_names
from llama_from_scratch.files import digest, locked, remove, replacing_file
from llama_from_scratch.train import History, resume

FORMAT = 1
"""The version of run.json. It grows when an older library can no longer read a run."""
UNCHANGED = "baseline"
"""The variant of an experiment in which nothing is changed."""
CHECKPOINT = "checkpoint"
"""The folder of a run whose model its config describes, as `train` writes it."""
STATES = ("planned", "running", "complete", "stopped", "diverged", "failed")
_NEED = "a run is described by a JSON file"
_LONGEST = 60


@record
class Run:
    """A variant with one seed, as its run.json describes it.

    `state`: one of `STATES`. `settings`: all of them by dotted name. `difference`: the ones that
    differ from the experiment's own. `parts`: what was exchanged, with its source. `metrics`: the
    final numbers; empty before the first validation. `samples`: pairs (steps done, text).
    `notes`: what a reader should know about the exchanged parts. `error`: why a run diverged or
    failed, or "".
    """

    folder: Path
    experiment: str
    variant: str
    seed: int
    state: str
    settings: Mapping[str, Any]
    difference: Mapping[str, Any]
    parts: Mapping[str, Any]
    data: Mapping[str, Any]
    code: Mapping[str, Any]
    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    began: str
    metrics: Mapping[str, float]
    samples: tuple[tuple[int, str], ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""

    @property
    def is_complete(self) -> bool:
        return self.state == "complete"

    @property
    def curves(self) -> Curves:
        """The measurements of each step. Raises ValueError if their file is missing or damaged."""
        return Curves.read(self.folder / "curves.npz")

    @property
    def history(self) -> History:
        """All steps of the run, from its checkpoint.

        Raises ValueError for a run without one, such as a run with exchanged parts.
        """
        steps = resume.read(self.folder / CHECKPOINT).steps
        return History(steps=steps, is_complete=self.is_complete)

    def to_json(self) -> dict[str, Any]:
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)
                 if field.name != "folder"}
        return {"format": FORMAT} | {name: dict(value) if isinstance(value, Mapping) else value
                                     for name, value in plain.items()}


@record
class Damaged:
    """A folder of a run that cannot be read, and why."""

    folder: Path
    reason: str


PLACE = "LLAMA_RUNS"
"""The environment variable that names another folder for runs."""


def default_folder() -> Path:
    """Returns where runs are kept: the folder that `LLAMA_RUNS` names, if it is set.

    Otherwise it is runs/experiments in the course's folder, or in this one if the course is not
    there or cannot be written to.
    """
    if chosen := os.environ.get(PLACE):
        return Path(chosen).expanduser().absolute()
    root = bundled.DATA.parent
    is_course = bundled.DATA.is_dir() and os.access(root, os.W_OK)
    return (root if is_course else Path.cwd()) / "runs" / "experiments"


class Store:
    """The runs in a folder, by default the one of this course. It is made when a run is saved."""

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = default_folder() if folder is None else Path(folder)

    def __repr__(self) -> str:
        return f"Store({str(self.folder)!r})"

    def place(self, experiment: Experiment, *, base: Experiment) -> Path:
        """Returns the folder of the run of `experiment`, a change of `base`."""
        return (self.folder / base.name / variant_name(experiment, base)
                / f"seed-{experiment.seed}")

    def find(self, place: Path) -> Run | None:
        """Returns the run in a folder of this store, or None if there is none.

        Raises ValueError if its record is damaged or of a newer version.
        """
        file = place / "run.json"
        if not file.exists():
            return None
        return _settled(read(file))

    def runs(self, *names: str) -> tuple[list[Run], list[Damaged]]:
        """Returns the runs, of all experiments or of the named ones, and the damaged folders.

        A run that was running when its process ended is "stopped". Raises ValueError for a store
        of a newer version and for an experiment without runs.
        """
        known = sorted(path.name for path in _folders(self.folder))
        for name in names:
            if name not in known:
                raise ValueError(f"the store {self.folder} has no runs of {name!r}; "
                                 + (nearest(name, known) if known else "it is empty"))
        found, damaged = [], []
        for name in names or known:
            for variant in _folders(self.folder / name):
                for place in _folders(variant):
                    try:
                        run = self.find(place)
                    except Newer:
                        raise
                    except ValueError as error:
                        damaged.append(Damaged(folder=place, reason=str(error)))
                        continue
                    if run is None:
                        if any(place.iterdir()):
                            damaged.append(Damaged(folder=place, reason=(
                                f"a run has a run.json; {place} has none. Delete the folder, or "
                                "run the experiment again")))
                        continue
                    found.append(run)
        return sorted(found, key=lambda run: (run.experiment, run.variant != UNCHANGED,
                                              run.variant, run.seed)), damaged

    def delete(self, place: Path) -> None:
        """Removes a run and its empty parents.

        Raises ValueError while the run is running, and for a folder that is no run of this store.
        """
        root, real = (Path(os.path.realpath(path)) for path in (self.folder, place))
        if real.parent.parent.parent != root or not place.is_dir():
            raise ValueError("a run is a folder EXPERIMENT/VARIANT/SEED of its store, "
                             f"{self.folder}; got {foreign.plain(place)}")
        with locked(place, waits=False):
            remove(place)
        for parent in (place.parent, place.parent.parent):
            with contextlib.suppress(OSError):  # not empty
                parent.rmdir()


class Newer(ValueError):
    """A record that a newer version of this library wrote."""


def write(run: Run) -> None:
    """Writes run.json, whole or not at all."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with replacing_file(run.folder / "run.json") as file:
        text = json.dumps(run.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        file.write_text(text, encoding="utf-8")


def read(file: Path) -> Run:
    """Returns the run that `write` wrote. Raises ValueError for a damaged or newer record."""
    plain = foreign.read_json(file, need=_NEED)
    if not isinstance(plain, dict):
        raise ValueError(f"{file} must hold an object; got {foreign.shown(plain)}. Delete the "
                         "folder, or run the experiment again")
    version = plain.pop("format", None)
    if isinstance(version, int) and version > FORMAT:
        raise Newer(f"{file} was written by a newer version of this library (format {version}; "
                    f"this version reads up to {FORMAT}). Update the library, or use another "
                    "store with --store")
    fields = {field.name: field.type for field in dataclasses.fields(Run)}
    missing = [name for name in fields if name not in plain and name != "folder"]
    unknown = [name for name in plain if name not in fields]
    if version != FORMAT or missing or unknown:
        what = (f"no {missing[0]!r}" if missing else f"the unknown {unknown[0]!r}" if unknown
                else f"format {foreign.shown(version)}")
        raise ValueError(f"a run.json of format {FORMAT} has the fields {', '.join(fields)} except "
                         f"folder; {file} has {what}. Delete the folder, or run the experiment "
                         "again")
    _refuse_other_kinds(file, plain)
    if plain["state"] == "complete" and "loss" not in plain["metrics"]:
        raise ValueError(f"a complete run has the metric 'loss'; {file} has "
                         f"{foreign.shown(plain['metrics'])}. Delete the folder, or run the "
                         "experiment again")
    samples = tuple((steps, text) for steps, text in plain.pop("samples"))
    notes = tuple(plain.pop("notes"))
    return Run(folder=file.parent, samples=samples, notes=notes, **plain)


def _are_pairs(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and type(pair[0]) is int
        and isinstance(pair[1], str) for pair in value)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(type(one) in (int, float) for one in value.values())


def _are_parts(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(part, dict) and all(isinstance(part.get(key), str)
                                       for key in ("name", "origin", "source", "digest"))
        for part in value.values())


_A_TEXT = ("a text", lambda value: isinstance(value, str))
_AN_OBJECT = ("an object", lambda value: isinstance(value, dict))
_RULES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "seed": ("a whole number", lambda value: type(value) is int),
    "experiment": _A_TEXT, "variant": _A_TEXT, "began": _A_TEXT, "error": _A_TEXT,
    "state": (f"one of {', '.join(STATES)}", lambda value: value in STATES),
    "samples": ("a list of pairs of steps and text", _are_pairs),
    "notes": ("a list of texts", lambda value: isinstance(value, list) and all(
        isinstance(note, str) for note in value)),
    "metrics": ("an object of finite numbers", _are_numbers),
    "parts": ("an object of parts, each with name, origin, source and digest", _are_parts),
}
"""What the value of a field must be, in words and as a check. All others are objects."""


def _refuse_other_kinds(file: Path, plain: Mapping[str, Any]) -> None:
    for name, value in plain.items():
        words, is_right = _RULES.get(name, _AN_OBJECT)
        if not is_right(value):
            raise ValueError(f"the field {name!r} of a run is {words}; {file} has "
                             f"{foreign.shown(value)}. Delete the folder, or run the experiment "
                             "again")


def variant_name(experiment: Experiment, base: Experiment) -> str:
    """Returns the name of the variant's folder: what differs from `base`, and a digest of it.

    "baseline" if nothing differs. The seed is not part of it.
    """
    values = difference(experiment, base)
    own = described(base)
    parts = {name: part for name, part in described(experiment).items()
             if part["digest"] != own.get(name, {}).get("digest")}
    if not values and not parts:
        return UNCHANGED
    short = short_names(values)
    words = [f"{short[name]}={value}" for name, value in values.items()]
    words += [f"{name}={part['name']}" for name, part in parts.items()]
    spelled = re.sub(r"[^\w.,=+-]+", "_", ",".join(words), flags=re.ASCII).strip("._-")
    exact = json.dumps([values, {name: [part["name"], part["digest"]]
                                 for name, part in parts.items()}], sort_keys=True, default=repr)
    return f"{spelled[:_LONGEST].rstrip('._-,')}-{digest(exact)[:8]}"


def planned(experiment: Experiment, *, base: Experiment, place: Path) -> Run:
    """Returns the record of a run that has not begun."""
    return Run(folder=place, experiment=base.name, variant=variant_name(experiment, base),
               seed=experiment.seed, state="planned", settings=settings(experiment),
               difference=difference(experiment, base), parts=described(experiment), data={},
               code={}, versions={}, machine={}, began="", metrics={})


def _settled(run: Run) -> Run:
    """Returns the run; "running" becomes "stopped" if no process holds it any more."""
    if run.state != "running":
        return run
    try:
        with locked(run.folder, waits=False):
            return dataclasses.replace(run, state="stopped")
    except ValueError:  # somebody holds it
        return run


def _folders(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(inner for inner in path.iterdir()
                          if inner.is_dir() and not inner.name.startswith("."))
