"""Runs, checks, shows and copies the course's notebooks.

`python -m llama_from_scratch.lessons.authoring --help` lists the commands.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from llama_from_scratch.lessons.authoring.copies import student
from llama_from_scratch.lessons.authoring.executing import CellFailed, run
from llama_from_scratch.lessons.authoring.lab import CannotOpen
from llama_from_scratch.lessons.authoring.rules import COMMAND, check
from llama_from_scratch.lessons.authoring.screenshots import screenshots
from llama_from_scratch.lessons.authoring.text import show
from llama_from_scratch.lessons.authoring.twice import repeat
from llama_from_scratch.lessons.exercises.reading import NOTEBOOKS


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 1 if a cell failed or a rule is broken, or 0.
    """
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in (("run", "execute the notebooks and store the outputs"),
                        ("check", "find broken rules, without executing anything"),
                        ("twice", "execute each cell twice and compare; store nothing")):
        command = commands.add_parser(name, help=words)
        command.add_argument("files", nargs="*", type=Path, help="default: all notebooks")
    shown = commands.add_parser("show", help="print a notebook as text, for git diff")
    shown.add_argument("file", type=Path)
    for name, words in (("student", "write readers' copies, without the solutions"),
                        ("screenshots", "photograph every picture and widget in JupyterLab")):
        command = commands.add_parser(name, help=words)
        command.add_argument("folder", type=Path)
        command.add_argument("files", nargs="*", type=Path, help="default: all notebooks")
    arguments = parser.parse_args(argv)
    if arguments.command == "show":
        sys.stdout.write(show(arguments.file))
        return 0
    files = arguments.files or sorted(NOTEBOOKS.glob("*.ipynb"))
    match arguments.command:
        case "run":
            return _run_all(files)
        case "check":
            complaints = [complaint for path in files for complaint in check(path)]
            print("\n".join([*map(str, complaints), f"{len(files)} notebooks checked"]))
            return int(any(complaint.is_error for complaint in complaints))
        case "twice":
            return _repeat_all(files)
        case "student":
            _copy_all(files, arguments.folder)
        case "screenshots":
            return _photograph_all(files, arguments.folder)
    return 0


def _copy_all(files: Sequence[Path], folder: Path) -> None:
    for path in files:
        try:
            print(student(path, folder))
        except FileExistsError as kept:
            print(kept)


def _photograph_all(files: Sequence[Path], folder: Path) -> int:
    try:
        taken = screenshots(files, folder)
    except (CannotOpen, ValueError) as error:
        print(f"error: {error}")
        return 1
    print(f"{len(taken)} pictures of {len(files)} notebooks written to {folder}")
    return 0


def _run_all(files: Sequence[Path]) -> int:
    status = 0
    for path in files:
        try:
            print(f"{path.name}: {'written' if run(path) else 'unchanged'}", flush=True)
        except CellFailed as error:
            print(f"error: {error}\n{path.name}: not changed", flush=True)
            status = 1
    return status


def _repeat_all(files: Sequence[Path]) -> int:
    status = 0
    for path in files:
        problems = repeat(path)
        print(f"{path.name}: {'; '.join(problems) or 'each cell can be run twice'}", flush=True)
        status |= bool(problems)
    return status


if __name__ == "__main__":
    sys.exit(main())
