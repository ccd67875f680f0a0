"""Checkpoints of a run that learns by reward, which `load` reads and `reinforce.fit` resumes.

The folder has the files of `train.resume`, with another record: training.json has {"kind":
"reinforce", "settings": ..., "updates": [one record per step]}. Which prompts and which random
numbers come next follows from the settings and the record, so a resumed run repeats the
uninterrupted one.

Notebook 54.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_from_scratch.checkpoint import checksums, native
from llama_from_scratch.checkpoint.folders import find
from llama_from_scratch.checkpoint.json_file import differences, read_json, write_json
from llama_from_scratch.checkpoint.safetensors_file import read_tensors, write_tensors
from llama_from_scratch.foreign import is_there, naming, shown
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.train.optimizer import AdamW
from llama_from_scratch.train.resume import refuse_taken
from llama_from_scratch.tune.adapters import bases
from llama_from_scratch.tune.policy.records import ReinforceConfig, ReinforceStep

_KIND = "reinforce"
_MAY_CHANGE = ("n_steps", "checkpoint_every", "patience", "answers_at_once")
"""Settings that may change when a run is resumed."""


def settings_of(
    model: Llama, config: ReinforceConfig, *, prompts: Sequence[Sequence[int]],
    reference: Llama | None,
) -> dict[str, Any]:
    """Returns, as JSON, everything that decides the numbers of a run except the reward."""
    text = str([list(ids) for ids in prompts])
    return {"model": model.config.to_dict(), "config": dataclasses.asdict(config),
            "prompts": hashlib.sha256(text.encode()).hexdigest()[:16],
            "reference": None if reference is None else
            bases.digest(reference, has_adapters=True)[:16]}


def save(
    folder: str | Path, model: Llama, tokenizer: AnyTokenizer, *, optimizer: AdamW,
    settings: dict[str, Any], steps: Sequence[ReinforceStep],
) -> None:
    """Writes a checkpoint that replaces the previous one in `folder`, whole or not at all."""
    with native.replacing(folder) as unfinished:
        write_tensors(unfinished / "optimizer.safetensors", optimizer.state_dict())
        write_json(unfinished / "training.json", {
            "kind": _KIND, "settings": settings,
            "updates": [dataclasses.asdict(step) for step in steps]})
        native.write(unfinished, model, tokenizer=tokenizer)


def begin(
    folder: str | Path | None, model: Llama, tokenizer: AnyTokenizer, *, optimizer: AdamW,
    settings: dict[str, Any], is_resumed: bool,
) -> list[ReinforceStep]:
    """Returns the steps already taken, after putting the saved weights and averages back.

    A new run has taken none.
    Raises ValueError if a checkpoint would be overwritten, if there is none to resume, or if its
    run differs in anything except how long it is, how often it saves, and how many answers go
    through the model together.
    """
    if folder is not None:
        native.refuse_what_cannot_be_saved(model, tokenizer)
    if not is_resumed:
        if folder is not None:
            refuse_taken(folder)
        return []
    found = None if folder is None else find(folder)
    if found is None or not is_there(found / "training.json"):
        raise ValueError("resuming needs a folder with the checkpoint of a run by reward; got "
                         f"{folder}. Check the path, or start without resuming")
    with naming(found):
        known = checksums.read(found)
        record = read_json(found / "training.json")
        checksums.refuse_damage(found / "training.json", known)
        steps = _steps_of(record, where=found / "training.json")
        _refuse_other_settings(record["settings"], settings, n_taken=len(steps), folder=folder)
        checksums.refuse_damage(found / "optimizer.safetensors", known)
        native.load_weights(folder, model)
        optimizer.load_state_dict(read_tensors(found / "optimizer.safetensors"))
    return steps


def _steps_of(record: Any, *, where: Path) -> list[ReinforceStep]:
    if (not isinstance(record, dict) or record.get("kind") != _KIND
            or not isinstance(record.get("settings"), dict)
            or not isinstance(record["settings"].get("config"), dict)
            or not isinstance(record.get("updates"), list)):
        raise ValueError(f"{where} is no record of a run by reward; it has {shown(record)}. Resume "
                         "it with the function that began it, or begin a new run from its weights")
    steps = []
    for i, plain in enumerate(record["updates"]):
        if not isinstance(plain, dict) or plain.get("step") != i or not all(
                type(value) in (int, float) for value in plain.values()):
            raise ValueError(f"a step is a JSON object of numbers; step {i} in {where} is "
                             f"{shown(plain)}. Copy or save the checkpoint again")
        steps.append(ReinforceStep(**plain))
    return steps


def _refuse_other_settings(
    saved: dict[str, Any], ours: dict[str, Any], *, n_taken: int, folder: str | Path
) -> None:
    free = {name: ours["config"][name] for name in _MAY_CHANGE}
    theirs = saved | {"config": saved["config"] | free}
    if differing := differences(theirs, ours):
        raise ValueError("a resumed run keeps the settings, the prompts and the reference it began "
                         f"with; for the checkpoint in {folder}, {'; '.join(differing)}. Resume "
                         "with these, or start a new run from its weights in another folder")
    if ours["config"]["n_steps"] < n_taken:
        raise ValueError("a resumed run needs at least as many steps as it has taken; the run in "
                         f"{folder} has taken {n_taken}, got n_steps="
                         f"{ours['config']['n_steps']}. Choose more")
