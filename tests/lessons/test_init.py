"""What notebooks import from the package is there, wherever it is kept, and loads no more than it
needs.
"""

import subprocess
import sys

import pytest
from lazy_packages import promised

from llama_from_scratch import lessons

HEAVY = {"torch", "numpy", "matplotlib", "ipywidgets", "nbformat", "nbclient"}


def test_what_is_promised_to_readers_is_what_is_given():
    modules = {name: home.rpartition(".")[0] for name, home in lessons._MODULES.items()}
    assert promised(lessons) == modules | lessons._HOMES
    for name, home in lessons._MODULES.items():
        assert getattr(lessons, name).__name__ == f"{lessons.__name__}.{home}"
    for name, home in lessons._HOMES.items():
        assert getattr(lessons, name).__module__ == f"{lessons.__name__}.{home}"


def test_an_unknown_name_is_refused_as_by_any_module():
    with pytest.raises(ImportError, match="cannot import name 'exporer'"):
        from llama_from_scratch.lessons import exporer  # noqa: F401


@pytest.mark.parametrize(("module", "allowed"), [
    ("lessons", set()), ("lessons.exercises", set()), ("lessons.authoring.__main__", set()),
    ("lessons.check", {"torch", "numpy"}), ("lessons.views.inspect_model", {"torch", "numpy"}),
    ("lessons.figures", {"torch", "numpy", "matplotlib"}),
    ("lessons.views.gpu", {"torch", "numpy", "matplotlib", "ipywidgets"}),
])
def test_each_room_loads_no_more_than_it_needs(module, allowed):
    code = f"import sys, llama_from_scratch.{module}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) <= allowed
