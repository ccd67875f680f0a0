"""A model may be saved only if it is what its config says: the files hold weights, and the config alone says what for.

A LayerNorm in place of an RMSNorm, an adapter around a matrix, a quantized head or one more branch would be written, loaded
without complaint as the plain model, and compute something else. So a model is held against one made from its config,
module by module, before a file is made.

Notebook 18.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from llama_from_scratch.checkpoint.strict import N_NAMED
from llama_from_scratch.model.unwritten import unwritten


def refuse_undescribed(model: nn.Module) -> None:
    """Raises ValueError, which names up to 8 differences, unless `model` is what `model.config` describes.

    Compared are modules by their type and their settings, parameters and stored buffers by name and shape, and which names
    share one parameter. A part of another type that computes the same function says so: its attribute `stands_for` is the
    type that it replaces, as in kernels.
    """
    problems = list(_differences(model, unwritten(model.config)))
    if problems:
        more = f"; and {len(problems) - N_NAMED} more" if len(problems) > N_NAMED else ""
        raise ValueError("a checkpoint loads as the model that its config describes, so nothing else is saved; here "
                         f"{'; '.join(problems[:N_NAMED])}{more}. Merge or remove adapters, put back the plain parts "
                         "(kernels.unfuse does it for fused ones), change model.config to what the model is, or save "
                         "model.state_dict() yourself")


def _differences(model: nn.Module, plain: nn.Module) -> Iterator[str]:
    found, described = dict(model.named_modules()), dict(plain.named_modules())
    for path, module in found.items():
        if path not in described and _parent(path) in described:
            yield f"{path} is a {_name(type(module))}, and the config describes nothing there"
    for path, wanted in described.items():
        if path in found:
            yield from _differences_of_module(path or "the model", found[path], wanted)
        elif _parent(path) in found:
            yield f"{path} is missing, where the config describes a {type(wanted).__name__}"
    yield from _differences_in_sharing(model, plain)


def _differences_of_module(path: str, module: nn.Module, wanted: nn.Module) -> Iterator[str]:
    stands_for = getattr(module, "stands_for", type(module))
    if stands_for is not type(wanted):
        yield f"{path} is a {_name(type(module))}, where the config describes a {_name(type(wanted))}"
    elif "forward" in vars(module):
        yield f"{path} computes with another forward than its {type(wanted).__name__}"
    if type(module) is type(wanted):
        settings = _settings(module)
        for name, value in _settings(wanted).items():
            if settings.get(name, value) != value:
                yield f"{path}.{name} is {settings[name]!r}, where the config describes {value!r}"
    for what, here, there in (("parameter", _parameters(module), _parameters(wanted)),
                              ("buffer", _buffers(module), _buffers(wanted))):
        for name in dict.fromkeys([*there, *here]):
            if here.get(name) != there.get(name):
                yield (f"{path}.{name} is {_words(what, here.get(name))}, "
                       f"where the config describes {_words(what, there.get(name))}")


def _differences_in_sharing(model: nn.Module, plain: nn.Module) -> Iterator[str]:
    """Names that share one parameter here and not in the described model, or there and not here: a head untied, or tied."""
    here, there = _first_names(model), _first_names(plain)
    for name in here.keys() & there.keys():
        if here[name] != there[name]:
            is_tied = there[name] != name
            first = there[name] if is_tied else here[name]
            yield (f"{name} and {first} are {'two parameters' if is_tied else 'one parameter'}, "
                   f"where the config describes {'one' if is_tied else 'two'}")


def _first_names(model: nn.Module) -> dict[str, str]:
    """For each name of a parameter the first name that the same parameter has."""
    names: dict[int, str] = {}
    return {name: names.setdefault(id(weight), name)
            for name, weight in model.named_parameters(remove_duplicate=False)}


def _settings(module: nn.Module) -> dict[str, Any]:
    """What a module's own arithmetic may depend on besides its tensors, such as the epsilon of a norm."""
    return {name: value for name, value in vars(module).items() if name != "training" and not name.startswith("_")
            and (value is None or isinstance(value, bool | int | float | str))}


def _parameters(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return _shapes(dict(module.named_parameters(recurse=False)))


def _buffers(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The buffers that a state dict of the module holds."""
    names = module.state_dict(keep_vars=True).keys()
    return _shapes({name: buffer for name, buffer in module.named_buffers(recurse=False) if name in names})


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _words(what: str, shape: tuple[int, ...] | None) -> str:
    return f"no {what}" if shape is None else f"a {what} {shape}"


def _name(kind: type) -> str:
    """A type in words; with its module where a name alone would read like ours."""
    is_plain = kind.__module__.startswith(("torch.nn.modules.", __package__.partition(".")[0] + "."))
    return kind.__name__ if is_plain else f"{kind.__module__}.{kind.__name__}"


def _parent(path: str) -> str:
    return path.rpartition(".")[0]
