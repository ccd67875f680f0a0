"""Checkpoints in the middle of a run: a model, its tokenizer, and what the next step needs.

The next step needs the optimizer's averages and the number of steps taken. Batches and learning
rates follow from that number, and nothing here draws random numbers. The settings and the identity
of the data, which must be equal for unchanged losses, are saved too, and compared.

training.json            {"settings": config and data of the run, "source": where the data came
                         from, "steps": one record per step}
optimizer.safetensors    `AdamW.state_dict`; when ranks wrote the checkpoint in parts, it is among
                         the pieces that manifest.json lists

Notebook 17.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from llama_from_scratch.checkpoint import checksums, native
from llama_from_scratch.checkpoint.described import refuse_undescribed
from llama_from_scratch.checkpoint.folders import find
from llama_from_scratch.checkpoint.json_file import differences, read_json
from llama_from_scratch.checkpoint.safetensors_file import read_tensors, write_tensors
from llama_from_scratch.checkpoint.sharded import manifest
from llama_from_scratch.checkpoint.sharded.saved import SavedPieces, StateInPieces
from llama_from_scratch.config import record
from llama_from_scratch.foreign import is_there, naming
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train import recorded
from llama_from_scratch.train.protocols import Data, Optimizer, SavedData, Validation
from llama_from_scratch.train.records import Step, TrainConfig

_MAY_CHANGE = ("n_steps", "validate_every", "checkpoint_every")
"""Settings that may change when a run is resumed."""


@record
class Saved:
    """A run in a folder, without its weights.

    `where`: the folder that holds it. `settings`, `source`: as in `OngoingRun`. `known`: the
    checksums of its files, None if it has none.
    """

    where: Path
    known: dict[str, str] | None
    settings: dict[str, Any]
    source: dict[str, Any] | None
    steps: tuple[Step, ...]

    @property
    def config(self) -> TrainConfig:
        return TrainConfig(**self.settings["config"])


@record
class OngoingRun:
    """Everything a run works with.

    `source`: saved for the code that resumes the run, for example the path of its data. It does not
    affect the run.
    """

    model: Llama
    optimizer: Optimizer
    config: TrainConfig
    data: Data
    validation: Validation | None
    source: dict[str, Any] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the numbers of a run, as JSON.

        Two runs with equal settings on equal machines have equal losses.
        """
        return {"model": self.model.config.to_dict(), "config": dataclasses.asdict(self.config),
                "data": _identity(self.data), "validation": _identity(self.validation)}


def _identity(data: SavedData | None) -> dict[str, Any] | None:
    if data is None:
        return None
    return {"n_documents": data.n_documents, "n_tokens": data.n_tokens, "digest": data.digest[:16]}


def save(folder: str | Path, run: OngoingRun, *, steps: Sequence[Step]) -> None:
    """Writes a checkpoint that `llama_from_scratch.load` and `begin` read.

    It replaces the previous checkpoint in `folder`, whole or not at all.
    """
    with native.replacing(folder) as unfinished:
        write_run(unfinished, run, steps=steps)
        # Last, because it records the checksums of all files.
        native.write(unfinished, run.model, tokenizer=run.data.tokenizer)


def write_run(unfinished: Path, run: OngoingRun, *, steps: Sequence[Step]) -> None:
    """Writes the optimizer and the record, which a checkpoint of a run has next to its weights."""
    write_tensors(unfinished / "optimizer.safetensors", run.optimizer.state_dict())
    (unfinished / "training.json").write_text(record_of(run, steps), encoding="utf-8")


def record_of(run: OngoingRun, steps: Sequence[Step]) -> str:
    """Returns the text of training.json."""
    return json.dumps({"settings": run.settings, "source": run.source,
                       "steps": [dataclasses.asdict(step) for step in steps]})


def read(
    folder: str | Path | None, *, what: str = "resuming", file: str = "config.json"
) -> Saved:
    """Returns the run in `folder`. Raises ValueError if there is none or its record is damaged.

    `what`: needs the run, as the begin of an error message. `file`: what marks the folder.
    """
    found = None if folder is None else find(folder, file=file)
    if found is None:
        raise ValueError(f"{what} needs a folder with the checkpoint of a run; got {folder}. "
                         f"Check the path{', or start without resuming' * (what == 'resuming')}")
    training_file = found / "training.json"
    if not is_there(training_file):
        raise ValueError(f"{what} needs the record of a run; the checkpoint in "
                         f"{folder} holds a model and no run to resume. "
                         "Start a new run from its weights in another folder")
    with naming(found):
        training, known = read_json(training_file), checksums.read(found)
        checksums.refuse_damage(training_file, known)
        steps = recorded.steps_of(training, where=training_file)
    return Saved(where=found, known=known, settings=training["settings"],
                 source=training.get("source"), steps=tuple(steps))


def refuse_taken(folder: str | Path) -> None:
    """Raises ValueError if a new run in `folder` would replace a checkpoint or other files."""
    if find(folder) is not None:
        raise ValueError(f"{folder} already holds a checkpoint, which a new run would replace. "
                         "Resume that run, choose another folder, or delete this one")
    native.refuse_foreign(Path(folder))


def put_back(run: OngoingRun, folder: str | Path, state: Mapping[str, Tensor]) -> None:
    """Puts the weights saved in `folder`, and the optimizer's `state`, into the run."""
    native.load_weights(folder, run.model)
    run.optimizer.load_state_dict(state)


def begin(
    run: OngoingRun, folder: str | Path | None, *, is_resumed: bool,
    put_back: Callable[[OngoingRun, str | Path, Mapping[str, Tensor]], object] = put_back,
) -> list[Step]:
    """Returns the steps already taken; a new run has taken none.

    For a resumed run, `put_back(run, folder, state)` puts the saved model and optimizer state into
    `run`. Its number of steps may change, and how often it saves and validates.
    Raises ValueError if a checkpoint would be overwritten, if there is none to resume, if its run
    differs from `run` in anything else, or if the model is not what its config describes.
    """
    if folder is not None:
        refuse_undescribed(run.model)
    if not is_resumed:
        if folder is not None:
            refuse_taken(folder)
        return []
    saved = read(folder)
    with naming(saved.where):
        state = state_of(run, folder, saved)
        put_back(run, folder, state)
    return list(saved.steps)


def state_of(run: OngoingRun, folder: str | Path, saved: Saved) -> Mapping[str, Tensor]:
    """Returns the saved optimizer state, after comparing the saved run with this one."""
    state: Mapping[str, Tensor]
    if manifest.is_in(saved.where):  # which is read piece by piece, and checked by its reader
        state = StateInPieces(SavedPieces(saved.where, known=saved.known))
    else:
        file = saved.where / "optimizer.safetensors"
        state = read_tensors(file)
        checksums.refuse_damage(file, saved.known)
    recorded.refuse_other_count(saved.steps, state, where=saved.where / "training.json")
    ours = run.settings
    free = {name: ours["config"][name] for name in _MAY_CHANGE}
    theirs = saved.settings | {"config": saved.settings["config"] | free}
    if differing := differences(theirs, ours):
        raise ValueError("a resumed run keeps the settings it began with; for the checkpoint in "
                         f"{folder}, {'; '.join(differing)}. Resume with its settings, or start a "
                         "new run from its weights in another folder (llama train --from)")
    if run.config.n_steps < len(saved.steps):
        raise ValueError("a resumed run needs at least as many steps as it has taken; the run in "
                         f"{folder} has taken {len(saved.steps)}, got n_steps="
                         f"{run.config.n_steps}. Choose more")
    return state
