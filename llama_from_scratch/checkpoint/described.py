"""Checks that a model is what its config describes, because only then may it be saved.

The files hold weights, and only the config says how they are used. A LayerNorm instead of an
RMSNorm, an adapter around a matrix, a quantized head or an additional branch would be saved,
loaded without an error as the plain model, and would compute something else. So before a file is
written, the model is compared module by module with one made from its config.

Notebook 18.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from llama_from_scratch.checkpoint.strict import N_NAMED
from llama_from_scratch.model.unwritten import unwritten


def refuse_undescribed(model: nn.Module) -> None:
    """Raises ValueError unless `model` is what `model.config` describes.

    The message names up to 8 differences. A part of another type that computes the same function
    has an attribute `stands_for`, the type that it replaces, as in kernels.
    """
    if problems := undescribed(model, accepts_stand_ins=True):
        more = f"; and {len(problems) - N_NAMED} more" if len(problems) > N_NAMED else ""
        raise ValueError("a checkpoint loads as the model that its config describes, so only that "
                         f"model can be saved; here {'; '.join(problems[:N_NAMED])}{more}. Merge "
                         "or remove adapters (tune.lora.save saves them alone, and a run with "
                         "parts=tune.lora.parts() too), put the plain parts back (for fused parts "
                         "with kernels.unfuse), change model.config to describe the model, or save "
                         "model.state_dict() yourself. For a model on a mesh, all ranks call "
                         "sharded.whole(sharded.weights), which yields the plain weights")


def undescribed(model: nn.Module, *, accepts_stand_ins: bool) -> list[str]:
    """Returns a sentence for each difference between `model` and what `model.config` describes.

    It compares the types and settings of modules, the names and shapes of parameters and stored
    buffers, and which names share a parameter. `accepts_stand_ins`: a part may have another type
    if its attribute `stands_for` is the described type.
    """
    plain = unwritten(model.config)
    return [*_differences("", model, plain, accepts_stand_ins),
            *_differences_in_sharing(model, plain)]


def _differences(
    path: str, module: nn.Module, wanted: nn.Module, accepts_stand_ins: bool
) -> Iterator[str]:
    """Yields the differences in a module and its submodules.

    The inside of a part of another type is not compared.
    """
    here = path or "the model"
    kind = getattr(module, "stands_for", type(module)) if accepts_stand_ins else type(module)
    if kind is not type(wanted):
        yield (f"{here} is a {_name(type(module))}, "
               f"where the config describes a {_name(type(wanted))}")
        return
    if "forward" in vars(module):
        yield f"{here} computes with another forward than its {type(wanted).__name__}"
    if type(module) is type(wanted):
        settings = _settings(module)
        for name, value in _settings(wanted).items():
            if settings.get(name, value) != value:
                yield (f"{_join(path, name)} is {settings[name]!r}, "
                       f"where the config describes {value!r}")
    parts, described = dict(module.named_children()), dict(wanted.named_children())
    for name in dict.fromkeys([*described, *parts]):
        below = _join(path, name)
        if name not in described:
            yield f"{below} is a {_name(type(parts[name]))}, where the config describes nothing"
        elif name not in parts:
            yield f"{below} is missing, where the config describes a {_name(type(described[name]))}"
        else:
            yield from _differences(below, parts[name], described[name], accepts_stand_ins)
    for name, p in module.named_parameters(recurse=False):
        if type(p.data) is not Tensor:
            yield (f"{_join(path, name)} is a {_name(type(p.data))}, "
                   "where the config describes a Tensor")
    for kind, found, needed in (("parameter", _parameters(module), _parameters(wanted)),
                                ("buffer", _buffers(module), _buffers(wanted))):
        for name in dict.fromkeys([*needed, *found]):
            if found.get(name) != needed.get(name):
                yield (f"{_join(path, name)} is {_words(kind, found.get(name))}, "
                       f"where the config describes {_words(kind, needed.get(name))}")


def _differences_in_sharing(model: nn.Module, plain: nn.Module) -> Iterator[str]:
    """Yields a sentence for names that share a parameter in only one of the two models.

    An example is the two names of a tied head.
    """
    here, there = _first_names(model), _first_names(plain)
    for name in here.keys() & there.keys():
        if here[name] != there[name]:
            is_tied = there[name] != name
            first = there[name] if is_tied else here[name]
            yield (f"{name} and {first} are {'two parameters' if is_tied else 'one parameter'}, "
                   f"where the config describes {'one' if is_tied else 'two'}")


def _first_names(model: nn.Module) -> dict[str, str]:
    """Returns for each name of a parameter the first name of the same parameter."""
    names: dict[int, str] = {}
    return {name: names.setdefault(id(weight), name)
            for name, weight in model.named_parameters(remove_duplicate=False)}


def _settings(module: nn.Module) -> dict[str, Any]:
    """Returns the numbers, texts and records of them that a module's result may depend on.

    An example is an epsilon. How a model that sees cuts images is not among them, because
    checkpoints store it in addition to the config.
    """
    return {name: value for name, value in vars(module).items()
            if name not in ("training", "tiling")
            and not name.startswith("_")
            and (value is None or isinstance(value, bool | int | float | str)
                 or dataclasses.is_dataclass(value))}


def _parameters(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return _shapes(dict(module.named_parameters(recurse=False)))


def _buffers(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Returns the buffers that a state dict of the module holds."""
    names = module.state_dict(keep_vars=True).keys()
    return _shapes(
        {name: buffer for name, buffer in module.named_buffers(recurse=False) if name in names})


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _words(what: str, shape: tuple[int, ...] | None) -> str:
    return f"no {what}" if shape is None else f"a {what} {shape}"


def _name(kind: type) -> str:
    """Returns the name of a type, with its module unless it is torch.nn's or our own."""
    is_plain = kind.__module__.startswith(
        ("torch.nn.modules.", __package__.partition(".")[0] + "."))
    return kind.__name__ if is_plain else f"{kind.__module__}.{kind.__name__}"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
