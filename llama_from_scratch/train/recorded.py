"""Reads and checks the steps in a training.json: numbers, order, and the optimizer's own count.

Notebook 17.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from llama_from_scratch.foreign import shown
from llama_from_scratch.train.records import Evaluation, Step

_CURE = "Copy or save the checkpoint again"


def steps_of(training: Any, *, where: Path) -> list[Step]:
    """Returns the steps of the record in the file `where`. Raises ValueError if it is damaged."""
    if (not isinstance(training, dict) or not isinstance(training.get("steps"), list)
        or not isinstance(settings := training.get("settings"), dict)
        or not isinstance(settings.get("config"), dict)):
        raise ValueError("the record of a run has the object \"settings\", with a \"config\" in "
                         f"it, and the list \"steps\"; {where} has {shown(training)}. {_CURE}")
    try:
        return [_step(i, plain) for i, plain in enumerate(training["steps"])]
    except ValueError as error:
        raise ValueError(f"{where} is no record of a run: {error}. {_CURE}") from error


def refuse_other_count(steps: Sequence[Step], state: Mapping[str, Tensor], *, where: Path) -> None:
    """Raises ValueError unless an optimizer's state counts as many steps as its run's record.

    A state without "n_steps" is not checked; it comes from another optimizer.
    """
    counted = state.get("n_steps")
    if counted is not None and counted.tolist() != len(steps):
        raise ValueError(f"a run's record and its optimizer count the same steps; {where} has "
                         f"{len(steps)}, and the optimizer.safetensors next to it has "
                         f"{shown(counted.tolist())}. Take both from the same save of the run")


def _step(i: int, plain: Any) -> Step:
    """Returns step `i` of the record. Raises ValueError for a value of the wrong kind."""
    if not isinstance(plain, dict):
        raise ValueError(f"a step is a JSON object; step {i} is {shown(plain)}")
    if (evaluation := plain.get("validation")) is not None:
        if not isinstance(evaluation, dict):
            raise ValueError(f"a validation is a JSON object; step {i} has {shown(evaluation)}")
        _refuse_other_numbers(i, evaluation, whole=("n_targets", "n_bytes"))
        evaluation = Evaluation(**evaluation)
    numbers = {key: value for key, value in plain.items() if key != "validation"}
    _refuse_other_numbers(i, numbers, whole=("step", "n_tokens"))
    if numbers.get("step", i) != i:
        raise ValueError(f"steps are numbered from 0 without gaps; step {i} is numbered "
                         f"{numbers['step']}")
    return Step(**numbers, validation=evaluation)


def _refuse_other_numbers(i: int, values: Mapping[str, Any], *, whole: tuple[str, ...]) -> None:
    for key, value in values.items():
        kinds = (int,) if key in whole else (int, float)
        if type(value) not in kinds or value < 0:
            raise ValueError(f"{shown(key)} is {'an int' if key in whole else 'a number'}, 0 or "
                             f"more; step {i} has {shown(value)}")
