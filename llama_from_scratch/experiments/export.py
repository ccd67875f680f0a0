"""Copies runs into the formats of other tools: TensorBoard, Weights & Biases, MLflow.

The store stays the source; an export is a copy for looking at. It is made through the tool's own
library, which is installed separately. Everything stays on this machine: W&B runs in its offline
mode, MLflow writes a SQLite file, and the reports that both send about their use are turned off.

Notebook 09.
"""

import datetime
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from llama_from_scratch.config import nearest
from llama_from_scratch.experiments.curves import METRICS, Curves
from llama_from_scratch.experiments.store import Run

_MLFLOW_BATCH = 500
"""How many numbers go to MLflow at once; it takes at most 1,000."""


def export(runs: Iterable[Run], *, to: str, folder: str | Path) -> list[Path]:
    """Writes runs for the tool `to` into `folder`, and returns the paths that the tool opens.

    "tensorboard": event files in EXPERIMENT/VARIANT/seed-K, for `tensorboard --logdir FOLDER`; an
    earlier export there is replaced. "wandb": an offline run per run, which `wandb sync` would
    upload. "mlflow": one SQLite file, for `mlflow ui --backend-store-uri sqlite:///FILE`. The last
    two add to what is there.
    Raises ValueError for another tool, without the tool's library, and before anything is written
    if the curves of a run cannot be read.
    """
    if to not in TOOLS:
        raise ValueError(f"runs can be exported to {', '.join(TOOLS)}; got {to!r:.60}. "
                         + nearest(str(to), TOOLS))
    pairs = [(run, run.curves) for run in runs]
    folder = Path(folder).absolute()
    try:
        return TOOLS[to](pairs, folder)
    except ImportError as error:
        raise ValueError(f"an export to {to} needs its library, which is not installed ({error}). "
                         f'Run pip install "llama_from_scratch[{to}]"') from error


def _tensorboard(pairs: list[tuple[Run, Curves]], folder: Path) -> list[Path]:
    from torch.utils.tensorboard import SummaryWriter

    places = []
    for run, curves in pairs:
        place = folder / run.experiment / run.variant / f"seed-{run.seed}"
        for earlier in place.glob("events.out.tfevents.*"):
            earlier.unlink()
        began_s = _began_s(run)
        with SummaryWriter(str(place)) as writer:
            for name, step, seconds, value in _points(curves):
                writer.add_scalar(name, value, step, walltime=began_s + seconds)
            # TensorBoard shows Markdown; four spaces keep a text as it is.
            for step, text in run.samples:
                writer.add_text("sample", _indented(text), step, walltime=began_s)
            writer.add_text("run", _indented(json.dumps(_about(run), indent=1)), walltime=began_s)
            writer.add_hparams(
                {name: value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
                 for name, value in run.settings.items()},
                {f"final/{name}": value for name, value in run.metrics.items()}, run_name=".")
        places.append(place)
    return places


def _wandb(pairs: list[tuple[Run, Curves]], folder: Path) -> list[Path]:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it is read when wandb is imported
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    places = []
    for run, curves in pairs:
        settings = wandb.Settings(
            console="off", silent=True, disable_git=True, disable_code=True, save_code=False,
            x_disable_meta=True, x_disable_stats=True, x_disable_machine_info=True)
        opened = wandb.init(
            project=run.experiment, group=run.variant, name=f"{run.variant}, seed {run.seed}",
            dir=str(folder), mode="offline", settings=settings, reinit="create_new",
            config=dict(run.settings), notes=json.dumps(_about(run)))
        rows: dict[int, dict[str, Any]] = {}
        for name, step, seconds, value in _points(curves):
            rows.setdefault(step, {"seconds": seconds})[name] = value
        for step, text in run.samples:
            rows.setdefault(step, {})["sample"] = text
        for step in sorted(rows):
            opened.log(rows[step], step=step)
        opened.summary.update({f"final/{name}": value for name, value in run.metrics.items()})
        places.append(Path(opened.dir).parent)
        opened.finish()
    return places


def _mlflow(pairs: list[tuple[Run, Curves]], folder: Path) -> list[Path]:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "mlflow.db"
    client = MlflowClient(tracking_uri=f"sqlite:///{file}")
    for run, curves in pairs:
        known = client.get_experiment_by_name(run.experiment)
        number = known.experiment_id if known is not None else client.create_experiment(
            run.experiment, artifact_location=(folder / "mlruns").as_uri())
        began_s = _began_s(run)
        made = client.create_run(number, start_time=round(began_s * 1000),
                                 run_name=f"{run.variant}, seed {run.seed}",
                                 tags={"variant": run.variant, "state": run.state}).info.run_id
        params = [Param(name, json.dumps(value)) for name, value in run.settings.items()]
        client.log_batch(made, params=params)
        metrics = [Metric(name, value, round((began_s + seconds) * 1000), step)
                   for name, step, seconds, value in _points(curves)]
        metrics += [Metric(f"final/{name}", value, round(began_s * 1000), 0)
                    for name, value in run.metrics.items()]
        for begin in range(0, len(metrics), _MLFLOW_BATCH):
            client.log_batch(made, metrics=metrics[begin : begin + _MLFLOW_BATCH])
        client.log_text(made, json.dumps(_about(run), indent=1), "run.json")
        client.log_text(made, "\n\n".join(f"{step}: {text}" for step, text in run.samples),
                        "samples.txt")
        client.set_terminated(made, "FINISHED" if run.is_complete else "FAILED")
    return [file]


TOOLS: Mapping[str, Callable[[list[tuple[Run, Curves]], Path], list[Path]]] = {
    "tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
"""The tools, and how a run is written for each."""


def _points(curves: Curves) -> Iterable[tuple[str, int, float, float]]:
    """Yields each measurement: its name, the steps done, the seconds so far, the value."""
    for metric in METRICS:
        steps, values = curves.along(metric)
        seconds, _ = curves.along(metric, axis="seconds")
        for step, second, value in zip(steps, seconds, values, strict=True):
            yield metric, int(step), float(second), float(value)


def _about(run: Run) -> dict[str, Any]:
    """Returns what a run is, without its settings, its folder and its samples."""
    return {name: value for name, value in run.to_json().items()
            if name not in ("settings", "samples", "format")}


def _began_s(run: Run) -> float:
    try:
        return datetime.datetime.fromisoformat(run.began).timestamp()
    except ValueError as error:
        raise ValueError(f"the beginning of a run is a time, such as 2026-01-31T12:00:00+00:00; "
                         f"{run.folder} has {run.began!r:.60}. Run the experiment again") from error


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())
