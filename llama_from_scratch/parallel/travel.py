"""Copies functions, arguments and results to another process, and names what cannot be copied.

Python's own pickle copies a function as the name of its module, and a notebook's cell is not a
module. cloudpickle copies the code itself, together with the globals that it uses.

Notebook 40.
"""

import collections
import importlib
import io
import types
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any


def pack_call(function: Any, args: tuple, kwargs: Mapping[str, Any]) -> bytes:
    """Returns the bytes of a call. Raises ValueError with the name of what cannot be copied."""
    if not callable(function):
        raise ValueError(f"ranks run a function; got {function!r}, a {type(function).__name__}. "
                         "Pass the function itself, and its arguments after it")
    named = {"the function": function}
    named |= {f"argument {number}": value for number, value in enumerate(args)}
    named |= {f"argument {name}": value for name, value in kwargs.items()}
    return _pack((function, args, dict(kwargs)), named, rule="what a rank needs is copied to it",
                 cure="Make it inside the function, or pass what it is made from")


def pack_result(result: Any) -> bytes:
    """Returns the bytes of a result. Raises ValueError with the name of what cannot be copied."""
    return _pack(result, {"the result": result}, rule="what a function returns is copied from the "
                 "rank", cure="Return what it is made from, or keep it in world.kept")


def pack(value: Any) -> bytes:
    """Returns the bytes of any value."""
    with io.BytesIO() as file:
        _pickler()(file).dump(value)
        return file.getvalue()


def unpack(packed: bytes) -> Any:
    """Returns the value."""
    return _cloudpickle().loads(packed)


def _pack(value: Any, named: dict[str, Any], *, rule: str, cure: str) -> bytes:
    try:
        return pack(value)
    except Exception as error:  # what cannot be pickled raises whatever it likes
        for name, part in named.items():
            if not _can_travel(part):
                name, part = _innermost(name, part, seen=set())
                raise ValueError(f"{rule}; {name}, a {type(part).__name__}, cannot be copied "
                                 f"({type(error).__name__}: {error}). {cure}") from error
        raise


def _innermost(name: str, value: Any, *, seen: set[int]) -> tuple[str, Any]:
    """Returns the smallest part that cannot be copied, with a name such as result['a'][0]."""
    seen.add(id(value))
    for inner_name, inner in _inside(name, value):
        if id(inner) not in seen and not _can_travel(inner):
            return _innermost(inner_name, inner, seen=seen)
    return name, value


def _inside(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yields the parts of a value, with their names."""
    if isinstance(value, types.FunctionType):
        for used in _names(value.__code__):
            if used in value.__globals__:
                yield f"the global {used!r}", value.__globals__[used]
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        yield from ((f"the variable {used!r}", cell.cell_contents) for used, cell in cells
                    if cell != types.CellType())
        yield from ((f"a default of {name}", default) for default in value.__defaults__ or ())
    elif isinstance(value, types.MethodType):
        yield f"the owner of {name}", value.__self__
    elif isinstance(value, Mapping):
        yield from ((f"{name}[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        yield from ((f"{name}[{number}]", item) for number, item in enumerate(value))
    elif hasattr(value, "__dict__") and not isinstance(value, type | ModuleType):
        yield from ((f"{name}.{field}", item) for field, item in vars(value).items())


def _names(code: types.CodeType) -> Iterator[str]:
    """Yields the names that some code uses, also in the functions inside it."""
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _names(const)


def _can_travel(value: Any) -> bool:
    try:
        pack(value)
    except Exception:  # see _pack
        return False
    return True


def _pickler() -> type:
    """Returns cloudpickle's class, made to keep the file names that cloudpickle drops.

    Without them, an error on a rank could not show where it was raised.
    """
    base = _cloudpickle().Pickler
    reduce_code = base.dispatch_table[types.CodeType]
    table = collections.ChainMap(
        {types.CodeType: lambda code: (with_file, (code.co_filename, *reduce_code(code)))},
        base.dispatch_table)
    return type("Pickler", (base,), {"dispatch_table": table})


def with_file(file: str, make: Callable[..., types.CodeType], args: tuple) -> types.CodeType:
    """Returns code that says that it comes from this file."""
    return make(*args).replace(co_filename=file)


def _cloudpickle() -> ModuleType:
    try:
        return importlib.import_module("cloudpickle")
    except ImportError:
        raise ValueError("functions travel to ranks through cloudpickle, which is not installed. "
                         "pip install cloudpickle") from None
