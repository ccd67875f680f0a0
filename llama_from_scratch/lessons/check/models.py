"""Compares two whole models and names the first module whose output differs.

Used in the chapters that build a model.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from llama_from_scratch.lessons.check.calling import guarded, tensors
from llama_from_scratch.lessons.check.difference import Tolerance, checked_tolerance, difference
from llama_from_scratch.lessons.check.failures import CheckFailed
from llama_from_scratch.lessons.check.words import describe

MODEL_TIME_LIMIT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Event:
    """The inputs or outputs of one call of a module."""

    module: str
    kind: str
    """"input" or "output"."""
    tensors: list[Tensor]
    is_innermost: bool

    def __str__(self) -> str:
        return f"the {self.kind} of {self.module or 'the whole model'}"


def compare(
    mine: Any, reference: nn.Module, *, ids: Int[Tensor, "B T"],
    rtol: float | int | None = None, atol: float | int | None = None,
    time_limit_s: float | int = MODEL_TIME_LIMIT_S,
) -> None:
    """Prints one line if two models give the same output for `ids`.

    If they do not, the error names the first module that differs.

    Modules with parameters or buffers are compared if their names are the same in both models:
    first their inputs, then their outputs, in the order in which `reference` calls them. If the
    names differ, the innermost modules of `reference` are taken in their order, and the error names
    the first one whose output no later module of `mine` gives.

    Models can only agree if they have the same weights. Raises CheckFailed if the outputs differ.
    Errors of `mine` are raised again, with a note that says in which module.
    """
    __tracebackhide__ = True
    tolerance = checked_tolerance(rtol, atol)
    if not isinstance(mine, nn.Module):
        raise CheckFailed("this check takes a model, which is a torch.nn.Module, but yours is "
                          f"{describe(mine)}")
    expected: list[Event] = []
    with _recording(reference, expected):
        reference(ids)
    found: list[Event] = []
    with _recording(mine, found):
        guarded(mine, (ids,), name="your model", note=f"  with ids of shape {tuple(ids.shape)}",
                time_limit_s=time_limit_s)
    problem = _event_difference(found[-1], expected[-1], tolerance)
    if problem is None:
        print(f"✓ the models agree, output of shape {tuple(expected[-1].tensors[0].shape)}")
        return
    yours, wanted = ({name for name, module in model.named_modules() if _holds_numbers(module)}
                     for model in (mine, reference))
    if yours == wanted:
        problem = _first_by_name(mine, reference, found, expected, tolerance)
    else:
        problem = f"{_first_by_order(found, expected, tolerance)}\n{problem}"
    raise CheckFailed(problem)


def _holds_numbers(module: nn.Module) -> bool:
    """Returns whether a module has parameters or buffers.

    A module without any, such as an activation, needs no comparison: the next module's input shows
    its output.
    """
    return any(True for _ in module.parameters()) or any(True for _ in module.buffers())


@contextlib.contextmanager
def _recording(model: nn.Module, events: list[Event]):
    """Appends the inputs and outputs of all modules of a model to `events`.

    An error gets a note that says in which module it was raised.
    """
    __tracebackhide__ = True
    inside: list[str] = []

    def record(name: str, kind: str, value: Any, module: nn.Module) -> None:
        copies = [x.detach().clone() for x in tensors(value)]
        events.append(Event(module=name, kind=kind, tensors=copies,
                            is_innermost=not any(map(_holds_numbers, module.children()))))

    def entering(name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            inside.append(name)
            record(name, "input", (*args, kwargs), module)
        return hook

    def leaving(name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Any) -> None:
            inside.pop()
            record(name, "output", output, module)
        return hook

    with contextlib.ExitStack() as hooks, torch.no_grad():
        for name, module in model.named_modules():
            if name and not _holds_numbers(module):
                continue
            before = module.register_forward_pre_hook(entering(name), with_kwargs=True)
            hooks.callback(before.remove)
            hooks.callback(module.register_forward_hook(leaving(name)).remove)
        try:
            yield
        except Exception as error:
            if inside and inside[-1]:
                error.add_note(f"inside {inside[-1]}")
            raise


def _event_difference(found: Event, expected: Event, tolerance: Tolerance) -> str | None:
    if len(found.tensors) == len(expected.tensors) == 1:
        return difference(found.tensors[0], expected.tensors[0], name=str(expected),
                          tolerance=tolerance)
    return difference(found.tensors, expected.tensors, name=str(expected), tolerance=tolerance)


def _first_by_name(
    mine: nn.Module, reference: nn.Module, found: list[Event], expected: list[Event],
    tolerance: Tolerance,
) -> str:
    """Returns a message about the first module that differs, with the likely cause."""
    calls: dict[tuple[str, str], list[Event]] = {}
    for event in found:
        calls.setdefault((event.module, event.kind), []).append(event)
    agreed = "the ids"
    for event in expected:
        module, queue = event.module or "the model", calls.get((event.module, event.kind))
        if not queue:
            return (f"Your model does not call {module}, or calls it less often than it should. "
                    f"Everything up to {agreed} agrees.")
        other = queue.pop(0)
        if event.kind == "input" and len(other.tensors) != len(event.tensors):
            continue  # a module that the reader wrote may take other arguments
        problem = _event_difference(other, event, tolerance)
        if problem is None:
            agreed = str(event)
            continue
        if event.kind == "input":
            parent = event.module.rpartition(".")[0] or "the model"
            where = (f"The first difference is in the input of {module}. So the mistake is in the "
                     f"forward method of {parent}, before it calls {module}.")
        elif weights := _weight_difference(mine, reference, event.module, tolerance):
            where = (f"{module} is the first module that differs: its weights are not the same."
                     f"\n{weights}")
        elif event.is_innermost:
            where = (f"{module} is the first module that differs: its input and weights are right, "
                     "but its output is not.")
        else:
            where = (f"{module} is the first module that differs. All modules that it calls are "
                     "right, so the mistake is in its own forward method.")
        return f"{where}\nEverything up to {agreed} agrees.\n{problem}"
    raise AssertionError("the outputs of the models differ, but no module differs")


def _weight_difference(
    mine: nn.Module, reference: nn.Module, module: str, tolerance: Tolerance
) -> str | None:
    yours = dict(mine.get_submodule(module).named_parameters(recurse=False))
    for key, parameter in reference.get_submodule(module).named_parameters(recurse=False):
        if key not in yours:
            return f"Your {module or 'model'} has no parameter {key}."
        if problem := difference(yours[key], parameter, name=f"{module}.{key}".lstrip("."),
                                 tolerance=tolerance):
            return problem
    return None


def _first_by_order(found: list[Event], expected: list[Event], tolerance: Tolerance) -> str:
    """Returns a message that names the first innermost module of the reference without a match.

    A match is a module of the reader's with the same output, after the matches before.
    """
    outputs = [event for event in found if event.kind == "output"]
    n_used, agreed = 0, "the ids"
    for event in expected:
        if event.kind == "input" or not event.is_innermost:
            continue
        match = next((i for i in range(n_used, len(outputs))
                      if not _event_difference(outputs[i], event, tolerance)), None)
        if match is None:
            return (f"After {agreed}, no module of yours returns the output of {event.module}, "
                    f"which has the shape {tuple(event.tensors[0].shape)}. (Your modules have "
                    "other names, so they are matched by their outputs, in order.)")
        n_used, agreed = (match + 1,
                          f"{event} ({outputs[match].module or 'the whole model'} in yours)")
    return f"Everything up to {agreed} agrees, so the mistake comes after it."
