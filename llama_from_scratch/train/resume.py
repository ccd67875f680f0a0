"""Checkpoints in the middle of a run: model and tokenizer as in any other, and what a step needs.

The next step needs the optimizer's averages and the number of steps taken; batches and learning
rates follow from the number, and nothing here draws random numbers. What must be equal for the
losses to go on unchanged is saved too, and compared.

training.json            {"settings": config and data of the run, "steps": one record per step}
optimizer.safetensors    `AdamW.state_dict`

Notebook 17.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_from_scratch.checkpoint import native
from llama_from_scratch.checkpoint.described import refuse_undescribed
from llama_from_scratch.checkpoint.folders import find
from llama_from_scratch.checkpoint.json_file import differences, read_json
from llama_from_scratch.checkpoint.safetensors_file import read_tensors, write_tensors
from llama_from_scratch.config import record
from llama_from_scratch.foreign import is_there, naming
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train import recorded
from llama_from_scratch.train.data import Packed
from llama_from_scratch.train.protocols import Data, Optimizer
from llama_from_scratch.train.records import Step, TrainConfig


@record
class Run:
    """Everything a run works with."""

    model: Llama
    optimizer: Optimizer
    config: TrainConfig
    data: Data
    validation: Packed | None

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the numbers of a run, as JSON.

        Two runs with equal settings on equal machines have equal losses.
        """
        return {"model": self.model.config.to_dict(), "config": dataclasses.asdict(self.config),
                "data": _identity(self.data), "validation": _identity(self.validation)}


def _identity(data: Packed | None) -> dict[str, Any] | None:
    if data is None:
        return None
    return {"n_documents": data.n_documents, "n_tokens": data.n_tokens, "digest": data.digest[:16]}


def save(folder: str | Path, run: Run, *, steps: Sequence[Step]) -> None:
    """Writes a checkpoint that `llama_from_scratch.load` and `begin` read.

    It replaces the last one in `folder`, whole or not at all.
    """
    with native.replacing(folder) as unfinished:
        native.write(unfinished, run.model, tokenizer=run.data.tokenizer)
        write_tensors(unfinished / "optimizer.safetensors", run.optimizer.state_dict())
        training = {"settings": run.settings, "steps": [dataclasses.asdict(step) for step in steps]}
        (unfinished / "training.json").write_text(json.dumps(training), encoding="utf-8")


def begin(run: Run, folder: str | Path | None, *, is_resumed: bool) -> list[Step]:
    """The steps already taken: none in a new run, those of the run in `folder` in a resumed one.

    Then the saved model and optimizer state are put into `run`.
    Raises ValueError if a checkpoint would be overwritten, if there is none to resume, if its run
    differs from `run`, or if the model is not what its config describes.
    """
    if folder is not None:
        refuse_undescribed(run.model)
    found = None if folder is None else find(folder)
    if not is_resumed:
        if found is not None:
            raise ValueError(f"{folder} already holds a checkpoint, which a new run would replace. "
                             "Resume that run, choose another folder, or delete this one")
        return []
    if folder is None or found is None:
        raise ValueError(f"resuming needs a folder with the checkpoint of a run; got {folder}. "
                         "Check the path, or start without resuming")
    if not is_there(found / "training.json"):
        raise ValueError(f"the checkpoint in {folder} holds a model and no run to resume. "
                         "Load the model and start a new run in another folder")
    with naming(found):
        return _resumed(run, folder, found)


def _resumed(run: Run, folder: str | Path, found: Path) -> list[Step]:
    training = read_json(found / "training.json")
    steps = recorded.steps_of(training, where=found / "training.json")
    state = read_tensors(found / "optimizer.safetensors")
    recorded.refuse_other_count(steps, state, where=found / "training.json")
    if differing := differences(training["settings"], run.settings):
        raise ValueError("a run goes on with the settings it began with; against the checkpoint in "
                         f"{folder}, {'; '.join(differing)}. Resume with those, or start a new run "
                         "in another folder")
    native.load_weights(folder, run.model)
    run.optimizer.load_state_dict(state)
    return steps
