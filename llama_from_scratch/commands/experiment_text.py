"""The texts that `llama experiment list` and `show` print."""

from collections.abc import Mapping, Sequence
from typing import Any

from llama_from_scratch.experiments.experiment import Experiment, described
from llama_from_scratch.experiments.parts import KINDS
from llama_from_scratch.experiments.settings import settings
from llama_from_scratch.experiments.store import STATES, Run
from llama_from_scratch.experiments.variant import Variant, told


def overview(name: str, known: Experiment | None, variants: Sequence[Variant]) -> str:
    """Returns an experiment with its question, and a line for each variant with its results."""
    lines = [f"{name}: {known.about}" if known is not None else name]
    if not variants:
        lines.append(f"  no runs yet; llama experiment run {name}")
    width = max((len(variant.label) for variant in variants), default=0)
    lines += [f"  {variant.label:{width}}  {_states(variant.runs)}{_results(variant)}"
              for variant in variants]
    return "\n".join(lines)


def experiment(name: str, known: Experiment | None, variants: Sequence[Variant]) -> str:
    """Returns an experiment with all its settings, its parts, and its variants."""
    lines = [overview(name, known, variants)]
    if known is not None:
        lines += ["", "settings, for --set:", *_table({
            setting: _shown(value) for setting, value in settings(known).items()})]
        lines += ["", "parts, for --replace:", *_table({
            part: kind.call for part, kind in KINDS.items()})]
        lines += _parts(described(known))
    return "\n".join(lines)


def variant(one: Variant, base: Experiment | None) -> str:
    """Returns all that is known about the runs of a variant. `base`: what it is a change of."""
    first = one.runs[0]
    lines = [repr(one), f"  in {first.folder.parent}"]
    usual = {} if base is None else settings(base)
    if one.difference:
        lines += ["", f"differs from {one.experiment}:", *_table({
            name: f"{_shown(value)}{_instead(name, usual)}"
            for name, value in one.difference.items()})]
    lines += _parts(one.parts)
    for run in one.runs:
        lines += ["", f"seed {run.seed}: {told(run)}", *_run(run)]
    same = {name: value for name, value in first.settings.items() if name != "seed"}
    lines += ["", "all settings:", *_table({
        name: _shown(value) + ("  (changed)" if name in one.difference else "")
        for name, value in same.items()})]
    return "\n".join(lines)


def _states(runs: Sequence[Run]) -> str:
    counts = {state: sum(run.state == state for run in runs) for state in STATES}
    if counts["complete"] == len(runs):
        return f"{len(runs)} complete"
    return ", ".join(f"{n} {state}" for state, n in counts.items() if n)


def _results(one: Variant) -> str:
    finals = one.finals()
    if not finals:
        return ""
    return "  validation loss " + " ".join(f"{value:.3f}" for value in finals)


def _run(run: Run) -> list[str]:
    """Returns the results, the last sample, and where a run was trained."""
    rows: dict[str, Any] = dict(run.metrics)
    if run.samples:
        steps, text = run.samples[-1]
        rows[f"sample after {steps} steps"] = repr(text)
    if run.data:
        rows["data"] = (f"{run.data.get('n_documents', 0):,} documents, "
                        f"{run.data.get('n_tokens', 0):,} tokens")
    if run.began:
        rows["began"] = run.began
    if run.machine:
        rows["machine"] = ", ".join(f"{name} {_shown(value)}"
                                    for name, value in run.machine.items())
    if run.code:
        state = {True: ", with changes", False: "", None: ""}[run.code.get("is_dirty")]
        rows["code"] = (f"version {run.code.get('version')}, commit "
                        f"{str(run.code.get('commit'))[:12]}{state}")
    if run.versions:
        rows["libraries"] = ", ".join(f"{name} {value}" for name, value in run.versions.items())
    return _table(rows)


def _parts(parts: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, part in parts.items():
        origin = part["origin"] or "a notebook or a script"
        lines += ["", f"{name}: {part['name']}, from {origin}",
                  *(f"  | {line}" for line in part["source"].splitlines())]
    return lines


def _table(rows: Mapping[str, Any]) -> list[str]:
    width = max(map(len, rows), default=0)
    return [f"  {name:{width}}  {value if isinstance(value, str) else _shown(value)}"
            for name, value in rows.items()]


def _instead(name: str, usual: Mapping[str, Any]) -> str:
    return f"  (otherwise {_shown(usual[name])})" if name in usual else ""


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    is_plain = isinstance(value, str) and value.strip() and value.isprintable()
    return value if is_plain else repr(value)
