"""The tools in a Python file: its public functions, in their order.

A function that is marked with `tool` has the settings of the mark. Any other public function that
the file itself defines is a consequential tool. Functions that it imports, and names that begin
with an underscore, are left out.

Notebook 56.
"""

import os
import types
from pathlib import Path

from llama_from_scratch.tune.running.python_file import module_of
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
    module = module_of(path, what="a file of tools")
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
