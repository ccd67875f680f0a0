"""Compares what the reader built with what it should be, and answers in words: what differs, where, and the likely cause.

`equal` compares values, `changed` asks that they differ, `function` compares what a function returns, `gradients` what flows
back through it, and `compare` two whole models, of which it names the first module that diverges. A success prints one line;
a failure raises `CheckFailed`.
Used in the exercises and proofs of every notebook.
"""

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from llama_from_scratch.lessons.check.calling import Arguments, Inputs, about, arguments, call, copied, guarded, named
from llama_from_scratch.lessons.check.calling import CheckFailed as CheckFailed
from llama_from_scratch.lessons.check.difference import (
    KINDS,
    Tolerance,
    counted,
    describe,
    difference,
    is_plural,
    name_of,
    same_kind,
    short,
)

TIME_LIMIT_S = 10.0
MODEL_TIME_LIMIT_S = 60.0
_PARAMETER = "parameter "


# --- values ----------------------------------------------------------------------------------------------------------


def equal(
    mine: Any, expected: Any, *, name: str = "your result", rtol: float | int | None = None, atol: float | int | None = None,
) -> None:
    """Prints one line if `mine` equals `expected`: a tensor, array, number, text, None, or a sequence or mapping of those.

    `name` is used in the messages; a suffix such as in scores_BHTS names the axes. Equal means |mine - expected| <= atol +
    rtol |expected|, by default as `difference.TOLERANCES` has it. Raises CheckFailed if they differ.
    """
    __tracebackhide__ = True
    if problem := difference(mine, expected, name=name, tolerance=_tolerance(rtol, atol)):
        raise CheckFailed(problem)
    shape = f", shape {tuple(expected.shape)}" if isinstance(expected, Tensor) and expected.ndim else ""
    print(f"✓ {name} {'are' if is_plural(name) else 'is'} right{shape}")


def changed(
    mine: Any, baseline: Any, *, name: str = "your result", is_lower: bool | None = None,
    rtol: float | int | None = None, atol: float | int | None = None,
) -> None:
    """Prints one line, with both, if `mine` differs from `baseline`: for an experiment whose outcome nobody can prescribe.

    Values and tolerances as for `equal`. `is_lower`: whether a number must fall (True) or rise (False) to pass.
    Raises CheckFailed if both are equal, of different kinds, or the number went the other way.
    """
    __tracebackhide__ = True
    mine, baseline = (x.item() if isinstance(x, Tensor) and x.ndim == 0 else x for x in (mine, baseline))
    has = "have" if is_plural(name) else "has"
    problem = difference(mine, baseline, name=name, tolerance=_tolerance(rtol, atol))
    if problem is None:
        raise CheckFailed(f"{name} {has} not changed: {_brief(baseline)} before, {_brief(mine)} now. Was the change made where "
                          "it takes effect, and was every cell run again that follows from it?")
    if not same_kind(mine, baseline):
        raise CheckFailed(problem)
    if is_lower is not None:
        if not isinstance(mine, KINDS["number"]) or isinstance(mine, complex):
            raise ValueError(f"only a number can be lower or higher; got {describe(mine)}. Leave is_lower out")
        if not (mine < baseline if is_lower else mine > baseline):
            asked, way = ("lower", "up") if is_lower else ("higher", "down")
            went = f"went {way}" if mine == mine else "is not a number"
            raise CheckFailed(f"{name} {went}: {_brief(baseline)} before, {_brief(mine)} now; a {asked} one is asked for")
    print(f"✓ {name} {has} changed: {_brief(baseline)} → {_brief(mine)}")


def _brief(value: Any) -> str:
    match value:
        case float():
            return f"{value:.4g}"
        case Tensor():
            return describe(value)
    return short(value)


def _tolerance(rtol: float | int | None, atol: float | int | None) -> Tolerance:
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"a tolerance is a number from 0 on; got {name}={value!r}")
    return rtol, atol


# --- functions -------------------------------------------------------------------------------------------------------


def function(
    mine: Any, reference: Callable[..., Any], *, inputs: Inputs, name: str | None = None,
    rtol: float | int | None = None, atol: float | int | None = None, time_limit_s: float | int = TIME_LIMIT_S,
) -> None:
    """Prints one line if `mine` returns what `reference` returns, for each of `inputs`.

    An input is a tuple of arguments, a dict of arguments by name, or one argument that is neither; instead of a sequence of
    inputs, a function that makes one from a torch.Generator is called with five seeds. Each call gets copies.
    Raises CheckFailed for another answer, a changed argument, other parameters, or a call longer than `time_limit_s`;
    NotWritten, with the task, for an exercise that is still blank; and what `mine` itself raises, with a note that says for
    which input.
    """
    __tracebackhide__ = True
    tolerance, name = _tolerance(rtol, atol), _checked_name(mine, name)
    calls = arguments(inputs)
    for number, given in enumerate(calls, start=1):
        note = about(mine, given, number=number, of=len(calls))
        expected, handed = call(reference, copied(given)), copied(given)
        answer = guarded(mine, handed, name=name, note=note, time_limit_s=time_limit_s)
        _refuse_difference(answer, expected, name, note, tolerance)
        before, after = named(mine, given), named(mine, handed)
        if changed := [key for key, value in before.items()
                       if _is_plain(value) and difference(after[key], value, name=key, tolerance=(0.0, 0.0))]:
            raise CheckFailed(f"{name} returns the right values, but changes its argument {changed[0]}; work on a copy, "
                              f"without methods that end in _ and without assigning to parts of it.\n{note}")
    print(f"✓ {name} is right for {counted(len(calls), 'input')}")


def gradients(
    mine: Any, reference: Callable[..., Any], *, inputs: Inputs, name: str | None = None,
    rtol: float | int | None = None, atol: float | int | None = None, time_limit_s: float | int = TIME_LIMIT_S,
) -> None:
    """Prints one line if `mine` returns what `reference` returns and sends the same gradients back to its arguments.

    The loss is the sum of all outputs, each times a fixed random weight, so that no error cancels. Of two modules the
    gradients of parameters with the same names are compared, too. Arguments and errors as for `function`.
    """
    __tracebackhide__ = True
    tolerance, name = _tolerance(rtol, atol), _checked_name(mine, name)
    calls = arguments(inputs)
    for number, given in enumerate(calls, start=1):
        note = about(mine, given, number=number, of=len(calls))
        keys = list(named(mine, given))
        leaves, handed = _leaves(reference, given, keys)
        expected = call(reference, handed)
        my_leaves, handed = _leaves(mine, given, keys)
        answer = guarded(mine, handed, name=name, note=note, time_limit_s=time_limit_s)
        _refuse_difference(answer, expected, name, note, tolerance)
        wanted, got = _gradients(expected, leaves), _gradients(answer, my_leaves)
        if not wanted:
            raise ValueError("gradients need a floating-point argument or parameter from which the result follows; "
                             f"{name_of(reference)} has none. Use check.function for whole numbers")
        for leaf, gradient in wanted.items():
            if leaf not in got:
                raise CheckFailed(f"no gradient reaches {leaf} through {name}: `.detach()`, `.item()`, `torch.tensor(...)` and "
                                  f"`torch.no_grad()` cut the way back, and so does an argument without use.\n{note}")
            if problem := difference(got[leaf], gradient, name=f"the gradient of {leaf}", tolerance=tolerance):
                raise CheckFailed(f"{name} returns the right values, but its backward pass differs:\n{problem}\n{note}")
    n_parameters = sum(leaf.startswith(_PARAMETER) for leaf in wanted)
    parts = ((len(wanted) - n_parameters, "argument"), (n_parameters, "parameter"))
    agreed = " and ".join(counted(n, unit) for n, unit in parts if n)
    print(f"✓ {name} is right for {counted(len(calls), 'input')}, and so are its gradients for {agreed}")


def _checked_name(mine: Any, name: str | None) -> str:
    if not callable(mine):
        raise CheckFailed(f"a function is to be checked, yours is {describe(mine)}. Hand over the function, not its result")
    return name or name_of(mine)


def _refuse_difference(answer: Any, expected: Any, name: str, note: str, tolerance: Tolerance) -> None:
    __tracebackhide__ = True
    if problem := difference(answer, expected, name=f"what {name} returns", tolerance=tolerance):
        raise CheckFailed(f"{problem}\n{note}")


def _is_plain(value: Any) -> bool:
    """True for what `difference` can look into."""
    if isinstance(value, Mapping | list | tuple):
        return all(map(_is_plain, value.values() if isinstance(value, Mapping) else value))
    return any(isinstance(value, KINDS[kind]) for kind in ("tensor", "array", "number", "text", "bytes", "None"))


def _leaves(side: Callable, given: Arguments, keys: list[str]) -> tuple[dict[str, Tensor], Arguments]:
    """By name what can have a gradient, and copies of all arguments."""
    by_name = dict(zip(keys, map(copied, given.values() if isinstance(given, dict) else given)))
    leaves = {key: x.requires_grad_() for key, x in by_name.items() if _can_have_gradient(x)}
    if isinstance(side, nn.Module):
        leaves |= {f"{_PARAMETER}{key}": x for key, x in side.named_parameters() if x.requires_grad}
    return leaves, by_name if isinstance(given, dict) else tuple(by_name.values())


def _can_have_gradient(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def _gradients(answer: Any, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    outputs = [x for x in tensors(answer) if x.requires_grad]
    if not outputs:
        return {}
    generator = torch.Generator().manual_seed(0)
    loss = sum((x * torch.randn(x.shape, generator=generator).to(x)).sum().real for x in outputs)
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {key: gradient for key, gradient in zip(leaves, found) if gradient is not None}


def tensors(value: Any) -> list[Tensor]:
    """All tensors in a value, a sequence or a mapping, in order."""
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [x for item in items for x in tensors(item)]


# --- models ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Event:
    """What entered or left a module in one call of it."""

    module: str
    kind: str
    """"input" or "output"."""
    tensors: list[Tensor]
    is_innermost: bool

    def __str__(self) -> str:
        return f"the {self.kind} of {self.module or 'the whole model'}"


def compare(
    mine: Any, reference: nn.Module, *, ids: Int[Tensor, "B T"],
    rtol: float | int | None = None, atol: float | int | None = None, time_limit_s: float | int = MODEL_TIME_LIMIT_S,
) -> None:
    """Prints one line if two models give the same output for `ids`; else names the first module that diverges.

    Modules with the same names are compared one by one, what enters and what leaves, in the order in which `reference`
    calls them. If the names differ, the innermost modules of `reference` are taken in their order, and the first is named
    whose output no later module of `mine` gives. Models can only agree if they have the same weights.
    Raises CheckFailed if they differ, and what `mine` itself raises, with a note that says in which module.
    """
    __tracebackhide__ = True
    tolerance = _tolerance(rtol, atol)
    if not isinstance(mine, nn.Module):
        raise CheckFailed(f"two models are to be compared, yours is {describe(mine)}. A model is a torch.nn.Module")
    expected: list[Event] = []
    with _recording(reference, expected):
        reference(ids)
    found: list[Event] = []
    with _recording(mine, found):
        guarded(mine, (ids,), name="your model", note=f"  with ids of shape {tuple(ids.shape)}", time_limit_s=time_limit_s)
    problem = _event_difference(found[-1], expected[-1], tolerance)
    if problem is None:
        print(f"✓ the models agree, output of shape {tuple(expected[-1].tensors[0].shape)}")
        return
    if {name for name, _ in mine.named_modules()} == {name for name, _ in reference.named_modules()}:
        problem = _first_by_name(mine, reference, found, expected, tolerance)
    else:
        problem = f"{_first_by_order(found, expected, tolerance)}\n{problem}"
    raise CheckFailed(problem)


@contextlib.contextmanager
def _recording(model: nn.Module, events: list[Event]):
    """Appends everything that enters and leaves the modules of a model; an error says in which module it rose."""
    __tracebackhide__ = True
    inside: list[str] = []

    def record(name: str, kind: str, value: Any, module: nn.Module) -> None:
        copies = [x.detach().clone() for x in tensors(value)]
        events.append(Event(module=name, kind=kind, tensors=copies, is_innermost=next(module.children(), None) is None))

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
            hooks.callback(module.register_forward_pre_hook(entering(name), with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(leaving(name)).remove)
        try:
            yield
        except Exception as error:
            if inside and inside[-1]:
                error.add_note(f"inside {inside[-1]}")
            raise


def _event_difference(found: Event, expected: Event, tolerance: Tolerance) -> str | None:
    if len(found.tensors) == len(expected.tensors) == 1:
        return difference(found.tensors[0], expected.tensors[0], name=str(expected), tolerance=tolerance)
    return difference(found.tensors, expected.tensors, name=str(expected), tolerance=tolerance)


def _first_by_name(
    mine: nn.Module, reference: nn.Module, found: list[Event], expected: list[Event], tolerance: Tolerance,
) -> str:
    """Which module goes wrong first, and what is known about why."""
    calls: dict[tuple[str, str], list[Event]] = {}
    for event in found:
        calls.setdefault((event.module, event.kind), []).append(event)
    agreed = "the ids"
    for event in expected:
        module, queue = event.module or "the model", calls.get((event.module, event.kind))
        if not queue:
            return f"{module} is not called in your model, or less often. Everything before agrees, up to {agreed}."
        other = queue.pop(0)
        if event.kind == "input" and len(other.tensors) != len(event.tensors):
            continue  # a module of one's own may take other arguments
        problem = _event_difference(other, event, tolerance)
        if problem is None:
            agreed = str(event)
            continue
        if event.kind == "input":
            parent = event.module.rpartition(".")[0] or "the model"
            where = f"What enters {module} differs first: the mistake is in the forward of {parent}, before that call."
        elif weights := _weight_difference(mine, reference, event.module, tolerance):
            where = f"{module} is the first module that diverges, and its weights differ.\n{weights}"
        elif event.is_innermost:
            where = f"{module} is the first module that diverges: its input and weights agree, its output does not."
        else:
            where = f"{module} is the first module that diverges: all that it calls agrees, so its own forward is wrong."
        return f"{where}\nEverything before agrees, up to {agreed}.\n{problem}"
    raise AssertionError("the outputs of the models differ and no module does")


def _weight_difference(mine: nn.Module, reference: nn.Module, module: str, tolerance: Tolerance) -> str | None:
    yours = dict(mine.get_submodule(module).named_parameters(recurse=False))
    for key, parameter in reference.get_submodule(module).named_parameters(recurse=False):
        if key not in yours:
            return f"Yours has no parameter {key}."
        if problem := difference(yours[key], parameter, name=f"{module}.{key}".lstrip("."), tolerance=tolerance):
            return problem
    return None


def _first_by_order(found: list[Event], expected: list[Event], tolerance: Tolerance) -> str:
    """The first innermost module of the reference whose output is not found, in order, among those of the reader's."""
    outputs = [event for event in found if event.kind == "output"]
    n_used, agreed = 0, "the ids"
    for event in expected:
        if event.kind == "input" or not event.is_innermost:
            continue
        match = next((i for i in range(n_used, len(outputs)) if not _event_difference(outputs[i], event, tolerance)), None)
        if match is None:
            return (f"No module of yours has the output of {event.module}, shape {tuple(event.tensors[0].shape)}, "
                    f"after {agreed}. (The names of modules differ, so they are matched by their outputs, in order.)")
        n_used, agreed = match + 1, f"{event} ({outputs[match].module or 'the whole model'} in yours)"
    return f"All innermost modules agree, up to {agreed}; the mistake comes after it."
