"""A study: several methods next to a control, each with several seeds, and one file of results.

A method is a function of a seed. It trains a copy of a bundled model, and returns shares and means
with their standard errors. Each result is written as soon as it is there, so a study that was
stopped goes on where it was. A result of other code or of another start is made again.

Notebooks 50 to 59.
"""

import datetime
import functools
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from llama_from_scratch import bundled
from llama_from_scratch.config import nearest, record
from llama_from_scratch.experiments import provenance
from llama_from_scratch.files import digest, replacing_file
from llama_from_scratch.tune.evals import Mean, Share

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")
_LIBRARY = Path(__file__).resolve().parents[2]
_STARTS = ("world/base", "world/assistant", "world/safe")

Measured = Mapping[str, Share | Mean]
"""What a method reached, by the name of the measure."""


@record
class Study:
    """A question about tuning, and the methods that answer it.

    `about`: the question, in words. `methods`: by name, a function of the seed that trains and
    measures. `control`: the name of the method that the others are compared with. Raises ValueError
    for a name that is no plain word, and for a control that is not among the methods.
    """

    name: str
    about: str
    methods: Mapping[str, Callable[[int], Measured]]
    control: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError("the name of a study is the name of its file: lowercase letters, "
                             f"digits, - and _, at most 41; got {self.name!r:.80}")
        if self.control not in self.methods:
            raise ValueError("a study compares with one of its methods; got the control "
                             f"{self.control!r}; {nearest(self.control, self.methods)}")


@record
class StudyRun:
    """One method with one seed. `seconds` of processor time are for training and measuring.

    `values`: by measure, the value and its standard error. Shares are between 0 and 1.
    """

    method: str
    seed: int
    seconds: float
    values: Mapping[str, tuple[float, float]]


@record
class StudyTable:
    """The results of a study, with the machine and the day of each run."""

    name: str
    about: str
    control: str
    runs: tuple[StudyRun, ...]
    machine: str
    began: str

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods, in the order of the study."""
        return tuple(dict.fromkeys(each.method for each in self.runs))

    @property
    def measures(self) -> tuple[str, ...]:
        """The names of everything that was measured."""
        return tuple(dict.fromkeys(name for each in self.runs for name in each.values))

    def of(self, method: str, measure: str) -> list[tuple[float, float]]:
        """Returns the value and the error for each seed of a method."""
        return [each.values[measure] for each in self.runs
                if each.method == method and measure in each.values]

    def __str__(self) -> str:
        width = max(map(len, self.methods))
        heads = [max(len(name), 8) for name in self.measures]
        lines = [" " * width + "  seed  " + "  ".join(
            f"{name:>{n}}" for name, n in zip(self.measures, heads, strict=True))]
        for each in self.runs:
            cells = ("{:.2f}±{:.2f}".format(*each.values[name]) if name in each.values else ""
                     for name in self.measures)
            lines.append(f"{each.method:<{width}}  {each.seed:>4}  " + "  ".join(
                f"{cell:>{n}}" for cell, n in zip(cells, heads, strict=True)))
        return "\n".join([*lines, f"{self.machine}, {self.began}"])


def run(
    study: Study, *, folder: str | os.PathLike, seeds: int | Sequence[int] = 2,
    is_again: bool = False, on_run: Callable[[StudyRun], object] | None = None,
) -> StudyTable:
    """Runs what is missing of a study, with one thread, and returns its whole table.

    `folder`: where NAME.json is kept. `seeds`: how many, from 0 on, or which. `is_again`: forget
    what the file has. `on_run`: called after each run. An interrupt loses only the run in progress.
    Raises ValueError for no seeds, and for a file that is not a study's.
    """
    wanted = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not wanted or len(set(wanted)) < len(wanted) or any(type(one) is not int for one in wanted):
        raise ValueError("a study needs at least one seed, as a number of them or a list of "
                         f"different whole numbers; got {seeds!r}")
    path = Path(folder) / f"{study.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {} if is_again or not path.exists() else _kept(path, study)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for seed in wanted:
            for name, method in study.methods.items():
                if (name, seed) in kept:
                    continue
                began = time.process_time()
                with torch.random.fork_rng(devices=[]):
                    measured = method(seed)
                kept[name, seed] = StudyRun(
                    method=name, seed=seed, seconds=round(time.process_time() - began, 1),
                    values={what: (round(each.value, 4), round(each.error, 4))
                            for what, each in measured.items()})
                _write(path, study, kept)
                if on_run is not None:
                    on_run(kept[name, seed])
    finally:
        torch.set_num_threads(n_threads)
    return read(path)


def read(path: str | os.PathLike) -> StudyTable:
    """Returns the table in a study's file. Raises ValueError for another file."""
    try:
        plain = json.loads(Path(path).read_text(encoding="utf-8"))
        runs = tuple(StudyRun(method=each["method"], seed=each["seed"], seconds=each["seconds"],
                              values={name: (float(value), float(error))
                                      for name, (value, error) in each["values"].items()})
                     for each in plain["runs"])
        return StudyTable(name=plain["study"], about=plain["about"], control=plain["control"],
                          runs=runs, machine=plain["machine"], began=plain["date"])
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"a study's results are a JSON file that `llama experiment run` wrote; "
                         f"{path} is not ({type(error).__name__}: {error}). Delete it, and run the "
                         "study again") from None


def stored(name: str) -> StudyTable:
    """Returns the results of a study that come with the course, from data/studies."""
    return read(bundled.path(f"studies/{name}.json"))


def _kept(path: Path, study: Study) -> dict[tuple[str, int], StudyRun]:
    """Returns the runs of a file that this code would repeat to the same values."""
    found = read(path)
    is_same = json.loads(path.read_text(encoding="utf-8")).get("code") == code()
    return {(each.method, each.seed): each for each in found.runs
            if is_same and each.method in study.methods}


def _write(path: Path, study: Study, kept: Mapping[tuple[str, int], StudyRun]) -> None:
    machine = provenance.machine()
    runs = [{"method": each.method, "seed": each.seed, "seconds": each.seconds,
             "values": {name: list(value) for name, value in each.values.items()}}
            for each in sorted(kept.values(), key=lambda one: (
                list(study.methods).index(one.method), one.seed))]
    with replacing_file(path) as file:
        file.write_text(json.dumps({
            "study": study.name, "about": study.about, "control": study.control, "code": code(),
            "versions": provenance.versions(), "machine": f"{machine['processor']}, one thread",
            "date": datetime.date.today().isoformat(), "runs": runs}, indent=1) + "\n",
            encoding="utf-8")


@functools.cache
def code() -> str:
    """Returns a digest of the sources and the bundled models that decide a study's values."""
    sources = [path for path in _sources() if path.name != "study.py"]
    starts = [bundled.path(f"{start}/checksums.json").read_bytes() for start in _STARTS]
    return digest(str(provenance.code()["digest"]), *(
        part for path in sources for part in (path.name, path.read_bytes())), *starts)[:12]


def _sources() -> Iterator[Path]:
    for part in ("tune", "generate"):
        yield from sorted((_LIBRARY / part).rglob("*.py"))
