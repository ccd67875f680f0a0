"""The source text of a part, and the values that it uses, so that a run remembers what it ran.

Two functions can have the same text and still differ: `lambda q, k: q - k < n` depends on n, and a
class depends on the helper that its method calls. So everything that a part refers to is described
as well, as far as it was written by the reader. Libraries are left out; a run records their
versions.

Notebook 09.
"""

import ast
import dis
import functools
import inspect
import linecache
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from llama_from_scratch.files import digest

_DEEPEST = 4
"""How many steps from a part its values are followed."""
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def text_of(use: Any) -> str:
    """Returns the text of a definition, or where it comes from if Python has no text of it."""
    shape = _definition(use)
    try:
        text = _class_text(shape) if isinstance(shape, type) else inspect.getsource(shape)
    except (TypeError, OSError, SyntaxError):
        return f"{getattr(shape, '__module__', None) or '?'}.{name_of(shape)}"
    return textwrap.dedent(text).rstrip()


def name_of(use: Any) -> str:
    """Returns the name of a class or function, also of one inside a function or a partial."""
    shape = _definition(use)
    return getattr(shape, "__qualname__", type(shape).__qualname__).rpartition("<locals>.")[2]


def uses_of(use: Any) -> dict[str, str]:
    """Returns what a part refers to, in words by name: values, helpers, and its base classes.

    Nothing in it depends on an address in memory, so equal parts have equal words.
    """
    found: dict[str, str] = {}
    seen: set[int] = set()

    def visit(name: str, value: Any, depth: int) -> None:
        if depth > _DEEPEST or id(value) in seen:
            return
        if not isinstance(value, _PLAIN):
            seen.add(id(value))
        if depth:
            _put(found, name, _words(value))
        for inner, other in _parts(value):
            visit(inner, other, depth + 1)

    visit("", use, 0)
    return dict(sorted(found.items()))


def _put(found: dict[str, str], name: str, words: str) -> None:
    """Adds an entry; of two with the same name, the second gets a number."""
    n, key = 2, name
    while found.get(key, words) != words:
        key, n = f"{name} ({n})", n + 1
    found[key] = words


def _definition(use: Any) -> Any:
    """Returns the class or function: of a partial, what it calls; of an object, its class."""
    while isinstance(use, functools.partial):
        use = use.func
    use = inspect.unwrap(use) if callable(use) else use
    is_definition = isinstance(use, type) or inspect.isroutine(use)
    return use if is_definition else type(use)


def _class_text(cls: type) -> str:
    """Returns the text of a class, also of one from a notebook cell, which has no file.

    Its methods know in which text they are, and in which line.
    """
    codes = list(_codes_of_methods(cls))
    for code in codes:
        lines = linecache.getlines(code.co_filename)
        if not lines:
            continue
        around = [node for node in ast.walk(ast.parse("".join(lines)))
                  if isinstance(node, ast.ClassDef) and node.name == cls.__name__
                  and node.lineno <= code.co_firstlineno <= node.end_lineno]
        if around:
            node = max(around, key=lambda node: node.lineno)
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            return "".join(lines[first - 1 : node.end_lineno])
    if codes:  # Python would search for the name in another text
        raise OSError("the text of the class is not available")
    return inspect.getsource(cls)


def _codes_of_methods(cls: type) -> Iterator[types.CodeType]:
    for value in vars(cls).values():
        function = getattr(value, "__func__", getattr(value, "fget", value))
        function = inspect.unwrap(function) if callable(function) else function
        if (isinstance(function, types.FunctionType)
                and function.__qualname__.startswith(f"{cls.__qualname__}.")):
            linecache.checkcache(function.__code__.co_filename)
            yield function.__code__


def _words(value: Any) -> str:
    """Returns a value in words that are equal for equal values."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, Tensor):
        data = value.detach().cpu().contiguous()
        return f"tensor {tuple(data.shape)} {digest(repr(data.tolist()))[:12]}"
    if isinstance(value, types.ModuleType):
        return f"module {value.__name__}"
    if isinstance(value, type) or inspect.isroutine(value):
        return _where(value) if _is_of_library(value) else text_of(value)
    if isinstance(value, nn.Module):
        return repr(value)
    return f"a {type(value).__module__}.{type(value).__qualname__}"


def _where(value: Any) -> str:
    return f"{getattr(value, '__module__', None)}.{getattr(value, '__qualname__', '?')}"


def _parts(value: Any) -> list[tuple[str, Any]]:
    """Returns what a value is made of and refers to, each with a name."""
    if isinstance(value, (*_PLAIN, Tensor, types.ModuleType)):
        return []
    if isinstance(value, functools.partial):
        return [(name_of(value.func), value.func),
                *((f"argument {i}", each) for i, each in enumerate(value.args)),
                *sorted(value.keywords.items())]
    if isinstance(value, types.MethodType):
        return [("self", value.__self__), (value.__name__, value.__func__)]
    if isinstance(value, dict):
        return [(str(key), each) for key, each in value.items()]
    if isinstance(value, (list, tuple, set, frozenset)):
        ordered = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        return [(str(i), each) for i, each in enumerate(ordered)]
    if isinstance(value, types.FunctionType):
        return [] if _is_of_library(value) else _parts_of_function(value)
    if isinstance(value, type):
        return [] if _is_of_library(value) else _parts_of_class(value)
    if isinstance(value, nn.Module):
        return [(type(value).__name__, type(value)), *value.state_dict().items(),
                *(pair for pair in vars(value).items() if pair[0][0] != "_")]
    return [(type(value).__name__, type(value)), *getattr(value, "__dict__", {}).items()]


def _parts_of_function(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    found = []
    if (inside := getattr(function, "__wrapped__", None)) is not None:
        found.append((inside.__name__, inside))
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found.append((name, cell.cell_contents))
        except ValueError:  # not filled yet
            continue
    found += [(f"default {i}", each) for i, each in enumerate(function.__defaults__ or ())]
    found += sorted((function.__kwdefaults__ or {}).items())
    found += [(name, function.__globals__[name]) for name in sorted(_globals(function.__code__))
              if name in function.__globals__]
    if not linecache.getlines(function.__code__.co_filename):  # no text: its instructions
        found.append((f"{function.__name__} in bytes", _instructions(function.__code__)))
    return found


def _parts_of_class(cls: type) -> list[tuple[str, Any]]:
    bases = [(base.__name__, base) for base in cls.__bases__ if base is not object]
    members = [(name, getattr(value, "__func__", getattr(value, "fget", value)))
               for name, value in vars(cls).items()]
    plain = [(name, value) for name, value in members
             if isinstance(value, _PLAIN) and not name.startswith("__")]
    return [*bases, *plain, *(pair for _, value in members if isinstance(value, types.FunctionType)
                              for pair in _parts_of_function(value))]


def _globals(code: types.CodeType) -> set[str]:
    """Returns the global names that a code and the functions inside it read."""
    names = {step.argval for step in dis.get_instructions(code)
             if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    inner = (_globals(const) for const in code.co_consts if isinstance(const, types.CodeType))
    return names.union(*inner)


def _instructions(code: types.CodeType) -> str:
    steps = [f"{step.opname} {step.argval}" for step in dis.get_instructions(code)
             if not isinstance(step.argval, types.CodeType)]
    inner = [_instructions(const) for const in code.co_consts if isinstance(const, types.CodeType)]
    return digest(*steps, *inner)[:12]


def _is_of_library(value: Any) -> bool:
    """Returns whether a class or function was installed, or is built in, or is this library's."""
    module = getattr(value, "__module__", None)
    if not isinstance(module, str) or module == "__main__":
        return module is None
    root = module.partition(".")[0]
    if root in sys.stdlib_module_names or root == "llama_from_scratch":
        return True
    file = getattr(sys.modules.get(root), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file
