"""The names that a package imports on first use, read from its source in two ways."""

import ast
from pathlib import Path


def promised(package):
    """Name -> module, as the imports under `if TYPE_CHECKING:` have it, which editors and readers
    see.
    """
    (block,) = (node for node in ast.parse(Path(package.__file__).read_text()).body
                if isinstance(node, ast.If))
    return {alias.name: found.module.removeprefix(f"{package.__name__}.") for found in block.body
            for alias in found.names}
