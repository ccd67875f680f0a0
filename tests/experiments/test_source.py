import functools
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from llama_from_scratch.experiments.source import name_of, text_of, uses_of

SCALE = 2.0


def scaled(x):
    return x * SCALE


class MyNorm(nn.Module):
    """A norm."""

    eps = 1e-3

    def __init__(self, dim, *, eps):
        super().__init__()

    def forward(self, x):
        return scaled(x)


def window(n):
    return lambda q, k: (k <= q) & (q - k < n)


def test_the_text_of_a_class_a_function_a_lambda_and_of_a_library():
    assert text_of(MyNorm).startswith("class MyNorm(nn.Module):")
    assert text_of(MyNorm).endswith("return scaled(x)")
    assert text_of(scaled) == "def scaled(x):\n    return x * SCALE"
    assert "q - k < n" in text_of(window(3)) and name_of(window(3)) == "<lambda>"
    assert text_of(nn.LayerNorm).startswith("class LayerNorm(Module):")
    assert text_of(torch.relu).endswith("relu") and text_of(max) == "builtins.max"


def test_a_partial_and_an_object_have_the_text_of_what_they_come_from():
    half = functools.partial(MyNorm, eps=1.0)
    assert text_of(half) == text_of(MyNorm) == text_of(MyNorm(1, eps=1))
    assert name_of(half) == name_of(MyNorm(1, eps=1)) == "MyNorm"


def test_what_a_text_refers_to_is_described():
    found = uses_of(MyNorm)
    assert found["SCALE"] == "2.0" and found["scaled"] == text_of(scaled)
    assert found["eps"] == "0.001" and found["Module"] == "torch.nn.modules.module.Module"


@pytest.mark.parametrize(("one", "other"), [
    (window(3), window(4)),
    (functools.partial(scaled, 1), functools.partial(scaled, 2)),
    (functools.partial(scaled, x=1), functools.partial(scaled, x=2)),
    (nn.Dropout(0.1), nn.Dropout(0.2)),
    ((lambda x, y=1: x), (lambda x, y=2: x)),
    (window(torch.ones(2)), window(torch.zeros(2))),
    (window({"a": [1]}), window({"a": [2]})),
    (window(MyNorm), window(scaled)),
    (nn.Linear(2, 2), nn.Linear(2, 2)),
])
def test_parts_that_differ_only_in_their_values_have_other_words(one, other):
    assert (text_of(one), uses_of(one)) != (text_of(other), uses_of(other))


def test_equal_parts_have_equal_words_without_addresses():
    for make in (lambda: window(3), lambda: window(object()), lambda: window([nn.Dropout(0.1)])):
        assert uses_of(make()) == uses_of(make()) and "0x" not in str(uses_of(make()))


def test_values_that_refer_to_each_other_end():
    ring = {}
    ring["ring"] = ring
    assert uses_of(window(ring))


def test_a_class_of_a_cell_has_its_text_and_a_new_one_has_the_new_text():
    pytest.importorskip("IPython", reason="pip install ipython")
    code = textwrap.dedent('''
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance()
        shell.run_cell("import torch")
        shell.run_cell("from llama_from_scratch.experiments.source import text_of")
        for n in (1, 2):
            shell.run_cell(f"""
        print("before")
        class MyNorm(torch.nn.Module):
            def forward(self, x):
                return x * {n}
        print(text_of(MyNorm))
        """)
    ''')
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    texts = done.stdout.split("before\n")[1:]
    assert [text.strip().splitlines()[-1].strip() for text in texts] == [
        "return x * 1", "return x * 2"], done.stderr
    assert all(text.startswith("class MyNorm(torch.nn.Module):") for text in texts)


def test_code_without_a_text_is_told_apart_by_its_instructions():
    scopes = [{"__name__": "__main__"} for _ in range(3)]
    for scope, number in zip(scopes, (1, 2, 1), strict=True):
        exec(f"def rule(q, k):\n    return k <= q - {number}\n", scope)
        exec(f"class Norm:\n    def forward(self, x):\n        return x - {number}\n", scope)
    for name in ("rule", "Norm"):
        one, other, again = (uses_of(scope[name]) for scope in scopes)
        assert one != other and one == again
