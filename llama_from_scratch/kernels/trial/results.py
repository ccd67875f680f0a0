"""The results file of one GPU: what each step of each part last found, when, and with what.

A run of one part changes only this part. A step that was not run this time, because it had no time
or Ctrl-C came first, keeps what an earlier run found, with that run's date and versions.

Notebook 30.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_from_scratch.files import replacing_file
from llama_from_scratch.kernels.trial.parts import ITSELF, Outcomes

Report = dict[str, Any]   # {"machine": {...}, "parts": {part: {step: outcome}}}


def path_for(folder: Path, device_name: str) -> Path:
    """Returns the path of a device's results: `gpu-nvidia-h200.json`."""
    name = re.sub(r"[^a-z0-9]+", "-", device_name.lower()).strip("-")
    return folder / f"gpu-{name}.json"


def read(path: Path) -> Report:
    """Returns a device's results, empty if there are none yet.

    Raises ValueError for a file that is not one of these.
    """
    if not path.exists():
        return {"machine": {}, "parts": {}}
    try:
        report = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise _not_results(path) from error
    if not isinstance(report, dict) or not {"machine", "parts"} <= report.keys():
        raise _not_results(path)
    return report


def _not_results(path: Path) -> ValueError:
    return ValueError("a results file must be JSON with the keys machine and parts, as start.py "
                      f"gpu writes it; {path} is not. Move it away, or give another folder")


def merged(
    report: Report, *, machine: Mapping[str, str], part: str, outcomes: Outcomes,
    versions: Mapping[str, str],
) -> Report:
    """Returns the report with a part's new outcomes. Steps that no longer exist are left out.

    If the part could not list its steps, everything that it found before is kept.
    """
    before = report["parts"].get(part, {})

    def chosen(step: str, outcome: dict[str, Any]) -> dict[str, Any]:
        if outcome["status"] != "not run":
            return outcome | {"versions": dict(versions)}
        if before.get(step, outcome)["status"] == "not run":
            return outcome
        return before[step] | {"not_run_again": f"{versions['date']}, {outcome['why']}"}

    steps = {step: chosen(step, outcome) for step, outcome in outcomes.items()}
    if not outcomes or ITSELF in outcomes:
        steps = before | steps
    return {"machine": dict(machine), "parts": {**report["parts"], part: steps}}


def write(report: Report, path: Path) -> None:
    """Replaces the file of a report in one step."""
    with replacing_file(path) as unfinished:
        unfinished.write_text(json.dumps(report, indent=1) + "\n")


def rows(report: Report) -> list[dict[str, Any]]:
    """Returns all rows of times of all parts, each with the `versions` that measured it.

    Where several steps timed the same kernel with other rivals, the first row has all of them.
    """
    found: dict[tuple, dict[str, Any]] = {}
    for steps in report["parts"].values():
        for step in steps.values():
            for row in step.get("rows", ()):
                key = (row["kernel"], row["dtype"], *row["size"])
                first = found.setdefault(key, row | {"versions": step["versions"], "rivals": [],
                                                     "ratios": {}})
                first["rivals"] = first["rivals"] + row["rivals"]
                first["ratios"] = first["ratios"] | row["ratios"]
    return list(found.values())
