"""The tools in a Python file: its public functions, in their order.

A function that is marked with `tool` has the settings of the mark. Any other public function that
the file itself defines is a consequential tool. Functions that it imports, and names that begin
with an underscore, are left out.

Notebook 56.
"""

import importlib.machinery
import importlib.util
import os
import sys
import types
from pathlib import Path

from llama_from_scratch.files import digest
from llama_from_scratch.tune.running.timed import in_words
from llama_from_scratch.tune.tools import FunctionTool, Toolbox, tool


def tools_in(path: str | os.PathLike) -> list[FunctionTool]:
    """Returns the tools that a file defines. The file is run as a Python module.

    Raises ValueError if it is missing or fails, if it defines no function, or if one of them
    cannot be a tool.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"tools are functions of a Python file; there is no file at {path}. Check "
                         "the path")
    module = _imported(path.resolve())
    found = []
    for name, each in vars(module).items():
        if name.startswith("_"):
            continue
        if isinstance(each, FunctionTool):
            found += [each] if all(each is not other for other in found) else []
        elif isinstance(each, types.FunctionType) and each.__module__ == module.__name__:
            found.append(tool(each))
    if not found:
        raise ValueError(f"a file of tools must define a public function; {path} defines none. "
                         "Write one with types and a docstring")
    Toolbox(found)  # refuses two tools of one name
    return found


def _imported(path: Path) -> types.ModuleType:
    """Returns the module of a file. What the file raises is an error that names the file."""
    name = f"tools_{digest(str(path))[:16]}"
    spec = importlib.util.spec_from_file_location(
        name, path, loader=importlib.machinery.SourceFileLoader(name, str(path)))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that `inspect` finds the file of its functions
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a file may raise anything
        del sys.modules[name]
        raise ValueError(f"a file of tools must run as a Python module; {path} fails with "
                         f"{in_words(error)}. Correct it") from error
    return module
