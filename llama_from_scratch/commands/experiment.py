"""`llama experiment`: trains experiments with other settings and parts, remembers and compares."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_from_scratch.commands.numbers import whole
from llama_from_scratch.commands.terminal import shown_line

_WHICH = ("NAME, NAME/VARIANT or NAME/VARIANT/seed-K; a variant is named by its folder, by what "
          "differs (peak_lr=0.003), or by a part of that")
_EXAMPLES = """examples:
  llama experiment list
  llama experiment show small
  llama experiment run small --set model.rope_theta=1e4,5e5 --seeds 3
  llama experiment run small --replace norm=torch.nn:LayerNorm
  llama experiment compare small norm=LayerNorm --out norm.png
  llama experiment run preferring --seeds 2
  llama experiment run --from mine.py:MINE --set data.path=letters.txt"""


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand, its own subcommands and their arguments."""
    parser = commands.add_parser(
        "experiment", help="change one thing, train again, and compare",
        description="Trains an experiment with other settings or parts, remembers every run in "
        "plain files, and compares the results.", epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    for add_one in (_add_run, _add_list, _add_show, _add_compare, _add_resume, _add_delete,
                    _add_export):
        add_one(actions)


def _action(actions, name: str, run, *, help: str, description: str = "", is_lasting: bool = False):
    parser = actions.add_parser(name, help=help, description=description or None)
    parser.set_defaults(run=run, is_lasting=is_lasting)
    parser.add_argument("--store", type=Path, metavar="FOLDER",
                        help="where runs are kept (default: $LLAMA_RUNS, or runs/experiments of "
                             "the course)")
    return parser


def _add_origin(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", dest="origin", metavar="FILE.py:NAME",
                        help="an Experiment of your own, by the file and the name of the variable")


def _add_run(actions: argparse._SubParsersAction) -> None:
    parser = _action(
        actions, "run", run, is_lasting=True, help="train an experiment, changed or not",
        description="Trains an experiment with these settings and parts. Several values of a "
        "setting, between commas, are a sweep. What the store has already is not trained again, "
        "and what was stopped goes on. Ctrl-C saves and stops. A study runs several methods of "
        "tuning next to a control, and prints one table.")
    parser.add_argument("name", nargs="?", metavar="NAME",
                        help="a named experiment or study; `llama experiment list` shows them")
    _add_origin(parser)
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="SETTING=VALUE",
                        help="a setting by its dotted name, with one value or several: "
                        "train.peak_lr=1e-3,3e-3; `llama experiment show NAME` lists them")
    parser.add_argument("--replace", nargs="+", action="extend", default=[], metavar="PART=WHERE",
                        help="another part: norm=torch.nn:LayerNorm, or mask=FILE.py:NAME")
    parser.add_argument("--seeds", type=whole(most=10_000), default=1, metavar="N",
                        help="train each variant with N seeds (default 1)")
    _add_workers(parser)
    parser.add_argument("--again", action="store_true",
                        help="train again even if the store has the result")


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=whole(most=10_000), metavar="N",
                        help="train N runs at once (default: one for each core)")


def _add_list(actions: argparse._SubParsersAction) -> None:
    parser = _action(actions, "list", list_runs,
                     help="list the experiments, and what the store has of them")
    parser.add_argument("name", nargs="?", metavar="NAME", help="only this experiment")


def _add_show(actions: argparse._SubParsersAction) -> None:
    parser = _action(actions, "show", show,
                     help="show an experiment, a variant or a run with all its settings")
    parser.add_argument("which", nargs="?", metavar="NAME[/VARIANT[/seed-K]]",
                        help=f"{_WHICH}; or the folder of a run")
    _add_origin(parser)


def _add_compare(actions: argparse._SubParsersAction) -> None:
    parser = _action(
        actions, "compare", compare, help="compare variants with the baseline",
        description="Prints what differs, the results, and whether the difference is larger than "
        "the spread of the seeds.")
    parser.add_argument("name", metavar="NAME", help="the experiment")
    parser.add_argument("variants", nargs="*", metavar="VARIANT",
                        help="(default: all that the store has)")
    parser.add_argument("--against", metavar="VARIANT",
                        help="a variant of the store (default: the saved baseline)")
    parser.add_argument("--metric", help="validation_loss, bits_per_byte or loss, which is the "
                        "training loss (default: the first that fits)")
    parser.add_argument("--axis", default="steps", help="what the curves are drawn against: steps, "
                        "tokens, seconds or flops (default steps)")
    parser.add_argument("--out", type=Path, metavar="FILE.png", help="draw the curves to this file")
    _add_origin(parser)


def _add_resume(actions: argparse._SubParsersAction) -> None:
    parser = _action(
        actions, "resume", resume, is_lasting=True, help="finish what is not complete",
        description="Trains all runs of the store that are planned, stopped or failed.")
    parser.add_argument("name", nargs="?", metavar="NAME", help="only this experiment")
    _add_origin(parser)
    _add_workers(parser)


def _add_delete(actions: argparse._SubParsersAction) -> None:
    parser = _action(actions, "delete", delete, help="delete runs from the store")
    parser.add_argument("which", nargs="+", metavar="NAME/VARIANT[/seed-K]", help=_WHICH)
    parser.add_argument("--yes", action="store_true", help="delete without asking")


def _add_export(actions: argparse._SubParsersAction) -> None:
    parser = _action(
        actions, "export", export, is_lasting=True, help="write runs for another program",
        description="Writes curves and settings for a program that shows them. Nothing leaves this "
        "machine.")
    parser.add_argument("which", nargs="+", metavar="NAME[/VARIANT[/seed-K]]", help=_WHICH)
    parser.add_argument("--to", required=True, choices=("tensorboard", "wandb", "mlflow"))
    parser.add_argument("--folder", type=Path, metavar="FOLDER",
                        help="where to write (default: runs/NAME_OF_THE_PROGRAM)")


# --- training -------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    """Trains what the arguments describe, and prints the results."""
    from llama_from_scratch.commands import studies
    from llama_from_scratch.experiments.store import Store
    from llama_from_scratch.experiments.sweep import sweep

    if studies.is_study(args):
        return studies.run(args)
    base, kept_in = _experiment(args), Store(args.store)
    grid, parts = _grid(args.set), dict(_pairs(args.replace, what="--replace", example=(
        "norm=torch.nn:LayerNorm")))
    variants = sweep(base, grid, replace=parts, seeds=args.seeds, kept_in=kept_in,
                     n_workers=args.workers, is_again=args.again)
    for variant in variants:
        print(shown_block(repr(variant)))
    status = _ended([one for variant in variants for one in variant.runs], args)
    if status == 0 and (changed := [one.label for one in variants if one.difference or one.parts]):
        print(f"to compare: llama experiment compare {base.name} {shlex.join(changed)}"
              f"{_options(args)}")
    return status


def resume(args: argparse.Namespace) -> int:
    """Trains what the store has begun or planned, and prints the results."""
    from llama_from_scratch.experiments.again import task_of
    from llama_from_scratch.experiments.store import Store
    from llama_from_scratch.experiments.sweep import train_all
    from llama_from_scratch.experiments.variant import grouped

    kept_in, own = Store(args.store), None if args.origin is None else _experiment(args)
    found, _ = kept_in.runs(*([args.name] if args.name else []))
    open_runs = [one for one in found if one.state in ("planned", "stopped", "failed")]
    tasks, n_left = [], 0
    for one in open_runs:
        try:
            tasks.append(task_of(one, own=own))
        except ValueError as error:
            n_left += 1
            print(f"left: {shown_line(str(error))}", file=sys.stderr)
    if not open_runs:
        print(f"nothing to resume: no run in {kept_in.folder} is planned, stopped or failed")
    if not tasks:
        return 2 if n_left else 0
    done = train_all(tasks, kept_in=kept_in, n_workers=args.workers)
    for variant in grouped(done):
        print(shown_block(repr(variant)))
    return _ended(done, args) or (2 if n_left else 0)


def _ended(runs: Sequence[Any], args: argparse.Namespace) -> int:
    """Returns the status of a command that trained these runs, and prints how to go on."""
    n_open = sum(one.state in ("planned", "running", "stopped") for one in runs)
    n_failed = sum(one.state == "failed" for one in runs)
    if n_open:
        print(f"{n_open} of {len(runs)} runs are not finished; to continue: llama experiment "
              f"resume {runs[0].experiment}{_options(args)}")
        return 130
    if n_failed:
        print(f"llama: {n_failed} of {len(runs)} runs failed; `llama experiment show` names the "
              "reasons", file=sys.stderr)
        return 2
    return 0


def _options(args: argparse.Namespace) -> str:
    """Returns the options that a next command needs to find the same runs."""
    given = {"--from": args.origin, "--store": args.store}
    return "".join(f" {name} {shlex.quote(str(value))}" for name, value in given.items()
                   if value is not None)


# --- looking --------------------------------------------------------------------------------------


def list_runs(args: argparse.Namespace) -> int:
    """Prints the experiments, their variants with results, the studies, and damaged folders."""
    from llama_from_scratch.commands import experiment_text as text
    from llama_from_scratch.commands import studies
    from llama_from_scratch.experiments.named import EXPERIMENTS
    from llama_from_scratch.experiments.store import Store
    from llama_from_scratch.experiments.variant import grouped

    if studies.is_study(args):
        print(shown_block("\n".join(studies.overviews(args))))
        return 0
    kept_in = Store(args.store)
    only = () if args.name is None or args.name in EXPERIMENTS else (args.name,)
    runs, damaged = kept_in.runs(*only)
    variants = grouped(runs)
    names = dict.fromkeys([*EXPERIMENTS, *(variant.experiment for variant in variants)])
    for name in names if args.name is None else (args.name,):
        of_name = [variant for variant in variants if variant.experiment == name]
        print(shown_block(text.overview(name, EXPERIMENTS.get(name), of_name)))
    if args.name is None:
        print(shown_block("\n".join(studies.overviews(args))))
    for one in damaged:
        if args.name in (None, one.folder.parent.parent.name):
            print(shown_line(f"damaged: {one.folder}: {one.reason}"))
    return 0


def show(args: argparse.Namespace) -> int:
    """Prints all settings of an experiment or a run, its parts, results, samples and machine."""
    from llama_from_scratch.commands import experiment_text as text
    from llama_from_scratch.experiments.choosing import chosen, parsed
    from llama_from_scratch.experiments.named import EXPERIMENTS
    from llama_from_scratch.experiments.store import Store
    from llama_from_scratch.experiments.variant import grouped

    kept_in, own = Store(args.store), None if args.origin is None else _experiment(args)
    if args.which is None and own is None:
        raise ValueError("show needs an experiment, a variant or a run; got none. `llama "
                         "experiment list` shows them")
    which = own.name if args.which is None else args.which
    name, variant, _ = parsed(which)
    known = own if own is not None and own.name == name else EXPERIMENTS.get(name)
    if which != name and (variant is not None or Path(which).is_dir()):
        for one in grouped(chosen(which, kept_in=kept_in)):
            base = own if own is not None else EXPERIMENTS.get(one.experiment)
            print(shown_block(text.variant(one, base)))
        return 0
    is_kept = (kept_in.folder / name).is_dir()
    if known is None and not is_kept:
        _experiment(argparse.Namespace(name=name, origin=None))  # names the nearest
    variants = grouped(kept_in.runs(name)[0]) if is_kept else []
    print(shown_block(text.experiment(name, known, variants)))
    return 0


def compare(args: argparse.Namespace) -> int:
    """Prints the comparison as a table, and draws it to a file."""
    from llama_from_scratch.experiments.choosing import chosen_variant
    from llama_from_scratch.experiments.compare import baseline
    from llama_from_scratch.experiments.compare import compare as compared
    from llama_from_scratch.experiments.store import Store
    from llama_from_scratch.experiments.variant import grouped

    kept_in = Store(args.store)
    variants = grouped(kept_in.runs(args.name)[0])
    if args.against is not None:
        first = chosen_variant(args.against, variants)
    else:
        first = baseline(_experiment(args))
    others = [chosen_variant(word.removeprefix(f"{args.name}/"), variants)
              for word in args.variants]
    if not others:
        others = [one for one in variants if one.name != first.name]
    if not others:
        raise ValueError("a comparison needs a variant in addition to the baseline; "
                         f"{kept_in.folder} has none of {args.name}. Train one: "
                         f"llama experiment run {args.name} --set SETTING=VALUE")
    result = compared(first, *others, metric=args.metric)
    print(shown_block(repr(result)))
    if args.out is not None:
        result.picture(axis=args.axis).savefig(args.out)
        print(f"drawn to {args.out}")
    return 0


# --- the store ------------------------------------------------------------------------------------


def delete(args: argparse.Namespace) -> int:
    """Deletes runs, after a question."""
    from llama_from_scratch.experiments.choosing import folders, parsed
    from llama_from_scratch.experiments.store import Store

    kept_in = Store(args.store)
    for word in args.which:
        if parsed(word)[1] is None:
            raise ValueError(f"delete needs a variant or a run; got the experiment {word!r:.60}. "
                             f"Name its variants: {word}/VARIANT")
    places = dict.fromkeys(place for word in args.which
                           for place in folders(word, kept_in=kept_in))
    for place in places:
        print(f"delete {shown_line(str(place))}")
    count = "1 run" if len(places) == 1 else f"{len(places)} runs"
    if not args.yes and not _is_yes(f"Delete {count}? [y/N] "):
        print("nothing is deleted")
        return 0
    for place in places:
        kept_in.delete(place)
    print(f"deleted {count}")
    return 0


def export(args: argparse.Namespace) -> int:
    """Writes runs for another program."""
    from llama_from_scratch.experiments.choosing import chosen
    from llama_from_scratch.experiments.export import export as write
    from llama_from_scratch.experiments.store import Store

    kept_in = Store(args.store)
    runs = {one.folder: one for word in args.which for one in chosen(word, kept_in=kept_in)}
    folder = Path("runs", args.to) if args.folder is None else args.folder
    write(list(runs.values()), to=args.to, folder=folder)
    print(f"written to {folder}: {len(runs)} run{'' if len(runs) == 1 else 's'}")
    return 0


# --- reading arguments ----------------------------------------------------------------------------


def _experiment(args: argparse.Namespace):
    """Returns the experiment that the arguments name."""
    from llama_from_scratch.experiments.experiment import Experiment
    from llama_from_scratch.experiments.named import EXPERIMENTS, named
    from llama_from_scratch.experiments.parts import part

    if args.origin is None:
        if args.name is None:
            raise ValueError("this needs the name of an experiment, or --from FILE.py:NAME; got "
                             f"neither. Known: {', '.join(EXPERIMENTS)}")
        return named(args.name)
    found = part(args.origin).use
    if not isinstance(found, Experiment):
        raise ValueError(f"--from must lead to an Experiment; {args.origin} is a "
                         f"{type(found).__name__}. Define one: NAME = Experiment(...)")
    if getattr(args, "name", None) not in (None, found.name):
        raise ValueError(f"the experiment of --from must have the name that is given; it is called "
                         f"{found.name!r}, got {args.name!r:.60}. Give only --from")
    return found


def _grid(words: Sequence[str]) -> dict[str, list[Any]]:
    from llama_from_scratch.experiments.settings import listed

    return {name: listed(text) for name, text in _pairs(
        words, what="--set", example="train.peak_lr=1e-3,3e-3")}


def _pairs(words: Sequence[str], *, what: str, example: str) -> list[tuple[str, str]]:
    pairs = [tuple(word.partition("=")[::2]) for word in words]
    for (name, text), word in zip(pairs, words, strict=True):
        if not name or not text:
            raise ValueError(f"{what} takes NAME=VALUE, such as {example}; got {word!r:.80}")
        if [other for other, _ in pairs].count(name) > 1:
            raise ValueError(f"{what} takes each name once; got {name!r} more than once. Give "
                             "several values between commas, or one part")
    return pairs


def _is_yes(question: str) -> bool:
    print(question, end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def shown_block(text: str) -> str:
    """Returns text of several lines, each without control characters."""
    return "\n".join(shown_line(line) for line in text.split("\n"))
