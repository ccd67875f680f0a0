"""Draws an experiment as the tree of its variants and runs, and what one run goes through.

Notebook 09.
"""

from collections.abc import Sequence

from matplotlib.figure import Figure

from llama_from_scratch.experiments.experiment import Experiment
from llama_from_scratch.experiments.store import Run
from llama_from_scratch.experiments.variant import Variant
from llama_from_scratch.lessons.figures.flow import Drawing
from llama_from_scratch.lessons.figures.look import TINTS

_MAX_RUNS, _MAX_VARIANTS, _MAX_LETTERS = 5, 8, 22
_PITCH, _ROW = 0.83, 0.72


def tree(experiment: Experiment, variants: Sequence[Variant]) -> Figure:
    """Draws an experiment, its variants with what each one changes, and their runs by seed.

    Raises ValueError for variants of another experiment, and if they do not fit on a page.

    Example: `experiments.tree(SMALL, [baseline(SMALL), run(SMALL, **{"model.n_kv_heads": 1})])`
    """
    _refuse_other_variants(experiment, variants)
    drawing = Drawing(f"The experiment {experiment.name}: variants, and one run for each seed")
    middle = 0.55 + _ROW * (len(variants) - 1) / 2
    root = drawing.step(experiment.name, (0.95, middle), does="focus", width=0.9,
                        detail=f"{experiment.model.n_params:,} weights")
    for row, variant in enumerate(variants):
        y = 0.55 + _ROW * row
        node = drawing.step(_shortened(variant.label), (3.25, y), width=1.6,
                            does="plain" if _is_unchanged(variant) else "choice")
        drawing.arrow((root.right[0], root.y), (node.left[0], y))
        runs = [drawing.cell(f"seed {run.seed}\n{_result(run)}", (5.05 + _PITCH * i, y), width=0.76,
                             color=TINTS[0] if run.is_complete else "#ECECEC")
                for i, run in enumerate(variant.runs)]
        drawing.arrow(node, runs[0])
    n_runs = sum(len(variant.runs) for variant in variants)
    if not all(run.is_complete for variant in variants for run in variant.runs):
        drawing.key({"complete": TINTS[0], "not complete": "#ECECEC"},
                    (4.67, 0.55 + _ROW * len(variants)))
    return drawing.figure(
        f"One experiment has {len(variants)} variants here, with {n_runs} runs in all. The runs of "
        "a variant differ only in their seed. The number in a run is its final validation loss.")


def path(run: Run) -> Figure:
    """Draws what a complete run went through, from its record to its files, with its numbers.

    Raises ValueError for a run that is not complete.

    Example: `experiments.path(run(SMALL).runs[0])`
    """
    if not run.is_complete:
        raise ValueError(f"this drawing needs a complete run; {run.folder.name} is {run.state}. "
                         "Run it again")
    curves, parts = run.curves, ", ".join(part["name"] for part in run.parts.values())
    drawing = Drawing(f"A run of {run.experiment}: what happens to it, and what is kept")
    record = drawing.step("record", (1.15, 0.6), does="focus",
                          detail=f"{len(run.settings)} settings,\n{len(run.difference)} of them "
                                 f"changed\nparts: {parts or 'none exchanged'}")
    tried = drawing.step("try out", (3.8, 0.6), does="plain",
                         detail="each exchanged part\ngets a tiny input\nbefore anything else")
    lookup = drawing.step("look up", (6.7, 0.6), does="choice",
                          detail="does a kept run have\nthese settings, parts,\ntext and code?")
    training = drawing.step("train", (6.7, 2.6), does="weights",
                            detail=f"{len(curves.steps)} steps,\n{int(curves.tokens[-1]):,} tokens"
                                   f"\nloss {curves.loss[0]:.2f} → {curves.loss[-1]:.2f}")
    kept = drawing.step("store", (3.8, 2.6), does="memory",
                        detail="run.json: the record\nand the final numbers\n"
                               "curves.npz: each step")
    compared = drawing.step("compare", (1.15, 2.6), does="plain",
                            detail="with other seeds\nand other variants")
    drawing.arrow(record, tried)
    drawing.arrow(tried, lookup)
    drawing.arrow(lookup, training, label="no")
    drawing.arrow(training, kept)
    drawing.arrow((lookup.x - 0.5, lookup.bottom[1]), (lookup.x - 0.5, 1.6), (kept.x, 1.6), kept,
                  label="yes: nothing is trained")
    drawing.arrow(kept, compared)
    return drawing.figure(
        f"The record has {len(run.settings)} settings. If the store has the same run, it is "
        f"returned. Otherwise the model is trained for {len(curves.steps)} steps, and its record "
        "and its curves are kept.")


def _refuse_other_variants(experiment: Experiment, variants: Sequence[Variant]) -> None:
    if not 0 < len(variants) <= _MAX_VARIANTS:
        raise ValueError(f"this drawing needs 1 to {_MAX_VARIANTS} variants; got {len(variants)}")
    for variant in variants:
        if variant.experiment != experiment.name:
            raise ValueError(f"a tree needs variants of {experiment.name!r}; got one of "
                             f"{variant.experiment!r}")
        if not 0 < len(variant.runs) <= _MAX_RUNS:
            raise ValueError(f"a variant in this drawing needs 1 to {_MAX_RUNS} runs; "
                             f"{variant.label} has {len(variant.runs)}. Draw fewer seeds")


def _is_unchanged(variant: Variant) -> bool:
    return not variant.difference and not variant.parts


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_LETTERS else text[: _MAX_LETTERS - 3] + "..."


def _result(run: Run) -> str:
    return f"{run.metrics['validation_loss']:.3f}" if run.is_complete else run.state
