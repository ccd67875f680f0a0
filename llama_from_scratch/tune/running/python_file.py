"""A reader's Python file, run as a module, whose errors name the file.

Notebooks 54 and 56.
"""

import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path

from llama_from_scratch.files import digest
from llama_from_scratch.tune.running.timed import in_words


def module_of(path: Path, *, what: str) -> types.ModuleType:
    """Returns the module that a file becomes when it is run.

    `what`: what the file is, for messages, such as "a file of tools".
    Raises ValueError if the file raises anything.
    """
    path = path.resolve()
    name = f"file_{digest(str(path))[:16]}"
    spec = importlib.util.spec_from_file_location(
        name, path, loader=importlib.machinery.SourceFileLoader(name, str(path)))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that `inspect` finds the file of its functions
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a file may raise anything
        del sys.modules[name]
        raise ValueError(f"{what} must run as a Python module; {path} fails with "
                         f"{in_words(error)}. Correct it") from error
    return module
