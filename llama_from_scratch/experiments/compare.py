"""Compares variants of an experiment: what differs, how they end, and whether the seeds explain it.

`compare(baseline, changed)` reads like a table on the command line and in a notebook, and
`compare(...).picture()` draws the curves. Only complete runs are averaged. The other ones are
counted and named.

Notebook 09.
"""

import dataclasses
import html
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_from_scratch import bundled
from llama_from_scratch.config import nearest, record
from llama_from_scratch.experiments import picture
from llama_from_scratch.experiments.curves import METRICS
from llama_from_scratch.experiments.experiment import Experiment, described
from llama_from_scratch.experiments.settings import settings
from llama_from_scratch.experiments.store import UNCHANGED, Store
from llama_from_scratch.experiments.variant import Variant, spelled, told
from llama_from_scratch.experiments.verdict import LEVEL, Judgment, judge, spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JUDGED = ("validation_loss", "bits_per_byte", "loss")
"""The metrics whose final values are compared. Lower is better in all of them."""
_IN_NATS = ("validation_loss", "loss")
"""Metrics per token, which mean different things with different tokenizers and texts."""
_TEXT = ("data.path", "data.separator", "data.suffixes", "data.validation", "data.max_validation")
"""The settings that decide which text a model is validated on."""
_PLAIN = "as in the library"
_LEFT, _RIGHT = (f"text-align: {side}; padding: 2px 8px" for side in ("left", "right"))
_COLUMNS = ("", "seeds", "mean", "spread", "difference", "interval", "verdict")


@record
class Changed:
    """A setting or part that differs from the baseline's: its name, and both values in words."""

    name: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.name}: {self.before} -> {self.after}"


@record
class VariantRow:
    """A variant in a comparison.

    `values`: the final value of each complete run, by seed. `left_out`: a line about each other
    run. `changes`: what differs from the baseline. `verdict`: None for the baseline, and for a
    variant without values.
    """

    label: str
    variant: Variant
    values: Mapping[int, float]
    left_out: tuple[str, ...]
    changes: tuple[Changed, ...] = ()
    verdict: Judgment | None = None

    @property
    def mean(self) -> float:
        """The mean over the seeds; NaN without values."""
        return math.fsum(self.values.values()) / len(self.values) if self.values else math.nan

    @property
    def spread(self) -> float:
        """The standard deviation over the seeds; NaN for fewer than two."""
        return spread([*self.values.values()])

    @property
    def words(self) -> str:
        """The verdict in a sentence, or why there is none; "" for the baseline."""
        if self.verdict is not None:
            return self.verdict.words
        return "" if self.values else "no complete run"


@record
class ComparedVariants:
    """Variants of an experiment, the baseline first. Shows itself as a table.

    `metric`: the one that is judged. `level`: of all comparisons together; each has its share.
    `notes`: what a reader should know before believing the table.
    """

    experiment: str
    metric: str
    level: float
    rows: tuple[VariantRow, ...]
    notes: tuple[str, ...]

    @property
    def differences(self) -> list[float]:
        """Mean minus the baseline's mean, of each other variant; NaN for one without values."""
        return [row.mean - self.rows[0].mean for row in self.rows[1:]]

    def picture(
        self, *, axis: str = "steps", metric: str | None = None, smoothing: float | None = None
    ) -> "Figure":
        """Returns a figure: the mean curve of each variant, and a band from lowest to highest seed.

        `axis`: one of `curves.AXES`. `metric`: one of `curves.METRICS`, by default the judged one.
        `smoothing`: the decay of a running mean over steps, by default 0.9; only for the training
        loss and the length of the gradient. `plt.show()` shows the figure, and `savefig` saves it.
        Raises ValueError for seconds on different machines, for nats per token of different texts
        or tokenizers, and if no variant has curves.
        """
        metric = self.metric if metric is None else metric
        variants = {row.label: row.variant for row in self.rows}
        if axis == "seconds" and len(machines := _machines(variants.values())) > 1:
            raise ValueError("seconds are comparable on one machine only; the runs are from "
                             f"{_and(machines)}. Draw against steps, tokens or flops")
        _refuse_nats(metric, variants.values())
        return picture.draw(variants, axis=axis, metric=metric, smoothing=smoothing,
                            title=self.experiment)

    def __repr__(self) -> str:
        cells = [_COLUMNS, *map(_cells, self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(_COLUMNS))]
        lines = ["  ".join(cell.ljust(width) if i in (0, 6) else cell.rjust(width)
                           for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
                 for row in cells]
        lines = [self._title(), "", *(line.rstrip() for line in lines), ""]
        for row in self.rows[1:]:
            lines += [f"{row.label}: {row.words}", *(f"  {each}" for each in row.changes)]
        lines += ["", *self._left_out(), *self.notes, self._rule()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{name}</th>' for name in (*_COLUMNS, "what differs"))
        body = "".join(_html_row(row) for row in self.rows)
        below = "".join(f"<li>{html.escape(line)}</li>"
                        for line in (*self._left_out(), *self.notes, self._rule()))
        return (f"<table><caption>{html.escape(self._title())}</caption>"
                f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><ul>{below}</ul>")

    def _title(self) -> str:
        return f"{self.experiment}: {METRICS[self.metric]} at the end; lower is better"

    def _left_out(self) -> list[str]:
        lines = [f"{row.label}, {line}" for row in self.rows for line in row.left_out]
        return [f"Not averaged: {'; '.join(lines)}"] if lines else []

    def _rule(self) -> str:
        n = len(self.rows) - 1
        share = "" if n == 1 else f", shared among {n} comparisons (Bonferroni)"
        return ("Spread is the standard deviation over the seeds. A t test that assumes equal "
                f"spreads judges each difference from {self.rows[0].label}, at level "
                f"{self.level:g}{share}.")


def compare(
    baseline: Variant, *others: Variant, metric: str | None = None, level: float = LEVEL
) -> ComparedVariants:
    """Returns the comparison of `others` with `baseline`, all variants of one experiment.

    `metric`: "validation_loss", "bits_per_byte" or "loss" (the training loss). By default it is the
    validation loss, or bits per byte if the variants have different texts or tokenizers. `level`:
    how often any verdict may be "different" where there is no difference.

    Raises ValueError for variants of different experiments, for a variant that is given twice or
    mixes runs with different settings, for a baseline without a complete run, and for nats per
    token of different texts or tokenizers.
    """
    _refuse_few_or_twice((baseline, *others))
    variants = labeled((baseline, *others))
    _refuse_strangers(variants)
    if metric is None:
        metric = usual_metric(variants.values())
        notes = [] if metric in _IN_NATS else [
            "The variants have different texts or tokenizers, so bits per byte are compared and "
            "not nats per token."]
    elif metric not in JUDGED:
        raise ValueError(f"no final value is called {metric!r:.60}; {nearest(metric, JUDGED)}")
    else:
        _refuse_nats(metric, variants.values())
        notes = []
    rows = [_row(name, variant, baseline, metric) for name, variant in variants.items()]
    if not rows[0].values:
        raise ValueError("a baseline needs at least one complete run; "
                         f"{rows[0].label} has none ({'; '.join(rows[0].left_out)}). Run it again")
    first, *rest = rows
    judged = [_judged(row, first, level=level / len(rest)) for row in rest]
    return ComparedVariants(experiment=baseline.experiment, metric=metric, level=level,
                      rows=(first, *judged), notes=(*notes, *_notes(variants)))


def baseline(experiment: Experiment, *, kept_in: Store | str | Path | None = None) -> Variant:
    """Returns the saved baseline of an experiment of the course: its unchanged runs.

    `kept_in`: the store it is saved in, by default data/experiments of this repository.
    Raises ValueError if there is none, or if the experiment is no longer the one that was run.
    """
    again = f"run(EXPERIMENT, seeds=3) of the experiment {experiment.name!r} trains one"
    try:
        kept_in = bundled.path("experiments") if kept_in is None else kept_in
        kept_in = kept_in if isinstance(kept_in, Store) else Store(kept_in)
        found, damaged = kept_in.runs(experiment.name)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"a saved baseline must exist; {error}. {again}") from error
    if hurt := [each for each in damaged if each.folder.parent.name == UNCHANGED]:
        raise ValueError(f"a saved baseline must be whole; {hurt[0].reason}")
    runs = tuple(run for run in found if run.variant == UNCHANGED)
    if not runs:
        raise ValueError(f"a saved baseline must exist; {kept_in.folder / experiment.name} has no "
                         f"folder {UNCHANGED}. {again}")
    saved = Variant(experiment=experiment.name, name=UNCHANGED, runs=runs)
    for run in runs:
        now = (_without_seed(settings(experiment)), described(experiment))
        if changes := _changes(now, (_without_seed(run.settings), run.parts)):
            raise ValueError(
                "a saved baseline must have the settings of the experiment; since it was made, "
                f"{'; '.join(f'{c.name} changed from {c.after} to {c.before}' for c in changes)}. "
                f"Make it again with `python data/make_baselines.py {experiment.name}`")
    return saved


# --- what may be compared -------------------------------------------------------------------------


def labeled(variants: Sequence[Variant]) -> dict[str, Variant]:
    """Returns the variants by label; equal labels get what distinguishes their runs.

    The saved baseline is called so.
    """
    saved = [v.runs[0].folder.is_relative_to(bundled.DATA) for v in variants]
    labels = [f"{v.label} (saved)" if is_saved else v.label
              for v, is_saved in zip(variants, saved, strict=True)]
    labels = [f"{label} ({v.name.rpartition('-')[2]})" if labels.count(label) > 1
              and v.name != UNCHANGED else label for label, v in zip(labels, variants, strict=True)]
    return {f"{label} ({i + 1})" if labels.count(label) > 1 else label: variant
            for i, (label, variant) in enumerate(zip(labels, variants, strict=True))}


def usual_metric(variants: Iterable[Variant]) -> str:
    """Returns "validation_loss", or "bits_per_byte" for different texts or tokenizers."""
    return "validation_loss" if len(_digests(variants)) < 2 else "bits_per_byte"


def _refuse_few_or_twice(variants: Sequence[Variant]) -> None:
    if len(variants) < 2:
        raise ValueError("a comparison needs a baseline and at least one other variant; got "
                         f"{len(variants)}. Give compare(baseline, changed)")
    seen: set[Path] = set()
    for variant in variants:
        folders = {run.folder for run in variant.runs}
        if seen & folders:
            raise ValueError("a variant is compared with other ones; the same runs were given "
                             f"twice, as {variant.label}. Give each once")
        seen |= folders


def _refuse_strangers(variants: Mapping[str, Variant]) -> None:
    names = list(dict.fromkeys(variant.experiment for variant in variants.values()))
    if len(names) > 1:
        raise ValueError("variants of one experiment are compared, because two experiments differ "
                         f"in more than one thing; got {_and(names)}. Run the change on one "
                         "experiment: run(EXPERIMENT, **{...})")
    for label, variant in variants.items():
        first, *rest = variant.runs
        for run in rest:
            changes = _changes(*((_without_seed(r.settings), r.parts) for r in (first, run)))
            if changes or len(_digests([variant])) > 1:
                what = changes[0] if changes else "the text that they read"
                raise ValueError("the runs of a variant differ in their seed only; seeds "
                                 f"{first.seed} and {run.seed} of {label} differ in {what}. The "
                                 "experiment was edited between them: run it again with all seeds")


def _refuse_nats(metric: str, variants: Iterable[Variant]) -> None:
    if metric in _IN_NATS and len(_digests(variants)) > 1:
        raise ValueError("nats per token are comparable for one text and one tokenizer; these "
                         f"variants have different ones, and the metric is {metric!r}. Use "
                         "metric=\"bits_per_byte\"")


def _digests(variants: Iterable[Variant]) -> set[str]:
    """Returns the digests of the tokens that the runs were trained on."""
    return {run.data["digest"] for variant in variants for run in variant.runs
            if "digest" in run.data}


def _machines(variants: Iterable[Variant]) -> list[str]:
    found = (run.machine for variant in variants for run in variant.runs if run.machine)
    return list(dict.fromkeys(
        f"{m.get('processor', 'an unknown processor')} ({m.get('device', '?')}, threads: "
        f"{m.get('n_threads', '?')})" for m in found))


def _notes(variants: Mapping[str, Variant]) -> list[str]:
    runs = [run for variant in variants.values() for run in variant.runs]
    notes = [f"{label}: {note}" for label, variant in variants.items()
             for note in dict.fromkeys(note for run in variant.runs for note in run.notes)]
    if len({repr([run.settings.get(name) for name in _TEXT]) for run in runs}) > 1 or len(
            {run.data.get("files") for run in runs if run.data}) > 1:
        notes.append("The variants were validated on different texts. One text can be harder "
                     "to predict than another.")
    if len(machines := _machines(variants.values())) > 1:
        notes.append(f"The runs are from different machines: {_and(machines)}. Losses are "
                     "comparable, but may differ in their last digits. Seconds are not comparable.")
    for what, values in (("versions of this library", [run.code.get("digest") for run in runs]),
                         ("versions of PyTorch", [run.versions.get("torch") for run in runs])):
        known = list(dict.fromkeys(value for value in values if value is not None))
        if len(known) > 1:
            notes.append(f"The runs are from different {what} ({_and(known)}), which may be a part "
                         "of the difference. To be sure, run the older ones again: is_again=True.")
    return notes


# --- rows -----------------------------------------------------------------------------------------


def _row(label: str, variant: Variant, first: Variant, metric: str) -> VariantRow:
    values, left_out = {}, []
    for run in variant.runs:
        if not run.is_complete:
            left_out.append(f"seed {run.seed}: {told(run)}")
        elif not math.isfinite(value := run.metrics.get(metric, math.nan)):
            left_out.append(f"seed {run.seed}: no finite {METRICS[metric]}")
        else:
            values[run.seed] = value
    both = ((_without_seed(v.runs[0].settings), v.runs[0].parts) for v in (first, variant))
    return VariantRow(label=label, variant=variant, values=values, left_out=tuple(left_out),
                      changes=tuple(_changes(*both)))


def _judged(row: VariantRow, first: VariantRow, *, level: float) -> VariantRow:
    if not row.values:
        return row
    found = judge([*first.values.values()], [*row.values.values()], level=level)
    return dataclasses.replace(row, verdict=found)


def _changes(
    before: tuple[Mapping[str, Any], Mapping[str, Any]],
    after: tuple[Mapping[str, Any], Mapping[str, Any]],
) -> list[Changed]:
    """Returns the settings and parts that differ between two pairs (settings, parts)."""
    (old, old_parts), (new, new_parts) = before, after
    changes = [Changed(name=name, before=_shown(name, old), after=_shown(name, new))
               for name in {**old, **new} if old.get(name) != new.get(name)]
    for name in sorted({**old_parts, **new_parts}):
        one, other = old_parts.get(name), new_parts.get(name)
        if _digest(one) != _digest(other):
            has_one_name = one and other and one["name"] == other["name"]
            changes.append(Changed(name=name, before=_part(one, has_one_name),
                                   after=_part(other, has_one_name)))
    return changes


def _digest(part: Mapping[str, str] | None) -> str:
    return "" if part is None else part["digest"]


def _part(part: Mapping[str, str] | None, is_ambiguous: bool | None) -> str:
    if part is None:
        return _PLAIN
    return f"{part['name']} (source {part['digest'][:6]})" if is_ambiguous else part["name"]


def _shown(name: str, values: Mapping[str, Any]) -> str:
    return spelled(values[name]) if name in values else "absent"


def _without_seed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "seed"}


# --- as a table -----------------------------------------------------------------------------------


def _cells(row: VariantRow) -> tuple[str, ...]:
    n, n_all = len(row.values), len(row.variant.runs)
    seeds = str(n) if n == n_all else f"{n} of {n_all}"
    result = (row.label, seeds, _number(row.mean), _number(row.spread))
    if row.verdict is None:
        return (*result, "", "", row.words)
    found = row.verdict
    interval = (f"{found.low:+.4f} to {found.high:+.4f}" if found.is_judged else "")
    return (*result, f"{found.difference:+.4f}", interval, found.short)


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"


def _html_row(row: VariantRow) -> str:
    label, *cells, verdict = map(html.escape, _cells(row))
    changes = "<br>".join(html.escape(str(each)) for each in row.changes)
    return (f'<tr><th scope="row" style="{_LEFT}">{label}</th>'
            + "".join(f'<td style="{_RIGHT}">{cell}</td>' for cell in cells)
            + f'<td style="{_LEFT}" title="{html.escape(row.words)}">{verdict}</td>'
            f'<td style="{_LEFT}">{changes}</td></tr>')


def _and(names: Sequence[Any]) -> str:
    return " and ".join(str(name) for name in names)
