"""The studies of `llama experiment`: several methods of tuning next to a control, as one table."""

import argparse
from pathlib import Path

from llama_from_scratch.experiments.store import Store
from llama_from_scratch.tune.studies import STUDIES, study


def is_study(args: argparse.Namespace) -> bool:
    """Returns whether the arguments name a study and no experiment of a file."""
    return getattr(args, "origin", None) is None and args.name in STUDIES


def run(args: argparse.Namespace) -> int:
    """Runs what is missing of a study, prints each result as it comes, and then the table.

    Raises ValueError for the options of an experiment that a study does not have.
    """
    chosen = STUDIES[args.name]
    options = {"--set": args.set, "--replace": args.replace, "--workers": args.workers}
    if given := [name for name, value in options.items() if value]:
        raise ValueError(f"{chosen.name} is a study: its methods are what it varies, one after "
                         f"the other; got {', '.join(given)}. Leave that out, or write an own "
                         "Study in Python and give it to tune.studies.study.run")
    n_runs = len(chosen.methods) * args.seeds
    print(f"{chosen.name}: {chosen.about}\n{n_runs} runs, the control is {chosen.control!r}",
          flush=True)
    folder = _folder(args)
    try:
        table = study.run(chosen, folder=folder, seeds=args.seeds, is_again=args.again,
                          on_run=lambda one: print(_line(one), flush=True))
    except KeyboardInterrupt:
        print(f"stopped; what is complete is kept in {folder}. To continue: llama experiment run "
              f"{chosen.name} --seeds {args.seeds}")
        return 130
    print(f"\n{table}\nin {folder / chosen.name}.json")
    return 0


def overviews(args: argparse.Namespace) -> list[str]:
    """Returns each study with its question, and its table if there is one."""
    names = STUDIES if args.name is None else [args.name]
    texts = []
    for name in names:
        path = _folder(args) / f"{name}.json"
        told = (f"\n{study.read(path)}" if path.is_file()
                else f"\n  a study of {len(STUDIES[name].methods)} methods, no results yet; llama "
                     f"experiment run {name} --seeds 2")
        texts.append(f"{name}: {STUDIES[name].about}{told}")
    return texts


def _folder(args: argparse.Namespace) -> Path:
    return Store(args.store).folder / "studies"


def _line(one: study.StudyRun) -> str:
    values = ", ".join(f"{name} {value:.2f} ± {error:.2f}"
                       for name, (value, error) in one.values.items())
    return f"  {one.method}, seed {one.seed}: {values} ({one.seconds:.0f} s)"
