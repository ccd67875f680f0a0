"""A cell is passed over the second time only if nothing that it reads was changed by the first."""

import tempfile
import threading
from types import SimpleNamespace

import nbformat
import pytest

from llama_from_scratch.lessons.authoring import inputs
from llama_from_scratch.lessons.authoring.executing import client
from llama_from_scratch.lessons.authoring.inputs import CannotTell, Watch, digest_of, names_read

START = """\
import itertools, os, random, tempfile, time
from pathlib import Path
import torch
from llama_from_scratch.lessons.authoring import inputs

box, more, numbers, count = [0], [1], itertools.count(), 0
lazy, name = iter(range(100)), "x"
weight = torch.ones(3, requires_grad=True)
def first():
    return box[0]
def grow():
    more.append(1)
class Agent:
    n_steps = 0
    def step(self):
        self.n_steps += 1
agent = Agent()"""
SAME = [
    "total = sum(box)\nprint(total)",
    "torch.manual_seed(0)\nprint(torch.rand(1) < 2)",
    "copied = [*box]\ncopied.append(1)\nprint(copied)",
    "for name in 'abc':\n    print(name)",
    "torch.manual_seed(1)\nmodel = torch.nn.Linear(2, 2)\nprint(first())",
    "new = Agent()\nnew.step()\nprint(new.n_steps)",
    "with tempfile.TemporaryDirectory() as name:\n    print(Path(name, 'x').write_text('1'))",
    "with torch.no_grad():\n    scaled = weight * 2\nprint(scaled.sum().item())",
]
CHANGED = {   # and what the note must hold
    "box.append(1)\nprint(1)": "box",
    "print(next(numbers) < 99)": "numbers",
    "print(next(lazy) < 99)": "lazy",
    "count += 1\nprint(1)": "count",
    "grow()\nprint(1)": "grow",
    "agent.step()\nprint(1)": "agent",
    "Agent.n_steps += 1\nprint(1)": "Agent",
    "(2 * weight).sum().backward()\nprint(1)": "weight",
    "with torch.no_grad():\n    weight[0] += 1\nprint(1)": "weight",
    "weight.requires_grad_(False)\nprint(1)": "weight",
    "print(torch.rand(1) < 2)": "PyTorch's generator",
    "torch.rand(1)\ntorch.manual_seed(len(box))\nprint(1)": "PyTorch's generator",
    "state = torch.get_rng_state()\ntorch.manual_seed(9)\nprint(1)": "PyTorch's generator",
    "print(random.random() < 2)": "random's generator",
    "with open('left.txt', 'a') as file:\n    print(file.write('1'))": "left.txt",
    "print(Path(tempfile.mkdtemp(), 'x').write_text('1'))": "/",
    "os.environ['FOUND'] = os.environ.get('FOUND', '') + '1'\nprint(1)": "the environment",
    "torch.set_num_threads(3 - torch.get_num_threads())\nprint(1)": "PyTorch's settings",
    "inputs._CACHES += ('x',)\nprint(1)": "authoring.inputs",
    "print(globals().get('box') is None)": "does not tell",
    "get_ipython().run_line_magic('pwd', '')": "does not tell",
    "%pwd": "does not tell",
    "if len(more) > 99:\n    name = 1\nelse:\n    more.append(1)\nprint(1)": "more",
    "doubled = lambda: box.append(1)\ndoubled()\nprint(1)": "box",
    "def longer(box=box):\n    box.append(1)\nlonger()\nprint(1)": "box",
}


def executed(folder, *sources):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in sources])
    client(nb, folder, 120).execute()
    return [cell.outputs for cell in nb.cells]


def test_a_second_run_is_passed_over_only_if_the_first_changed_nothing_that_the_cell_reads(
    tmp_path
):
    sources = [*SAME, *CHANGED]
    with tempfile.TemporaryDirectory() as folder:
        begin = ("from llama_from_scratch.lessons.authoring.inputs import watch\n"
                 f"seen = watch({folder!r})\nseen.long_s = 0.0")
        outputs = executed(tmp_path, begin, START,
                           *(each for source in sources for each in (source, source)),
                           "print(*(why for _, why in seen.notes[1:]), sep='\\n')")
    again = dict(zip(sources, outputs[3:-1:2], strict=True))
    assert all(outputs[2:-1:2]), "each cell shows something the first time"
    assert {source for source, shown in again.items() if not shown} == {*SAME}
    notes = outputs[-1][0].text.splitlines()
    assert notes[:len(SAME)] == [""] * len(SAME)
    for (source, words), note in zip(CHANGED.items(), notes[len(SAME)::2], strict=True):
        assert words in note, (source, note)


def test_a_short_cell_and_a_failed_one_are_run_again_in_any_case(tmp_path):
    with tempfile.TemporaryDirectory() as folder:
        begin = ("from llama_from_scratch.lessons.authoring.inputs import watch\n"
                 f"seen = watch({folder!r})")
        fails = "import time\ntry:\n    x = 1\nfinally:\n    time.sleep(1.2)\nprint(1)"
        outputs = executed(tmp_path, begin, "print(1)", "print(1)", "print(2)", fails, fails)
    assert outputs[2] and outputs[4] and not outputs[5]


def test_what_another_thread_changes_while_it_is_read_counts_as_changed(monkeypatch):
    seen = Watch(SimpleNamespace(user_ns={"x": 1}), folders=())
    assert seen._state({"x"}, None).names == {"x": digest_of(1)}

    def changes():
        raise RuntimeError("dictionary changed size during iteration")

    monkeypatch.setattr(inputs, "around", changes)
    assert "changed size" in str(seen._state({"x"}, None))


def test_a_watched_kernel_has_a_store_of_runs_of_its_own(tmp_path):
    with tempfile.TemporaryDirectory() as folder:
        outputs = executed(
            tmp_path, "from llama_from_scratch.lessons.authoring.inputs import watch\n"
            f"seen = watch({folder!r})\n"
            "from llama_from_scratch.experiments.store import Store\nprint(Store().folder)")
        assert outputs[0][0].text.strip().startswith(folder)


@pytest.mark.parametrize(("source", "names"), [
    ("x = y\nz = x", {"y"}),
    ("x = x + 1", {"x"}),
    ("x += 1", {"x"}),
    ("x: int = y", {"int", "y"}),
    ("for x in y:\n    z = x\nz", {"y", "z"}),
    ("while x:\n    y = 1\ny", {"x", "y"}),
    ("if x:\n    y = 1\nelse:\n    y = 2\ny", {"x"}),
    ("if x:\n    y = 1\ny", {"x", "y"}),
    ("x and (y := 1)\ny", {"x", "y"}),
    ("z = (y := 1) if x else 2\ny", {"x", "y"}),
    ("with x as y:\n    z = y\ny, z", {"x", "z"}),
    ("try:\n    x = 1\nexcept y:\n    x = 2\nx", {"x", "y"}),
    ("try:\n    pass\nfinally:\n    x = 1\nx", set()),
    ("match x:\n    case 1:\n        y = 1\ny", {"x", "y"}),
    ("[x for x in y if x in z]\nx", {"x", "y", "z"}),
    ("{k: v for k, vs in y for v in vs}", {"y"}),
    ("del x", {"x"}),
    ("x = 1\ndel x\nx", {"x"}),
    ("import x.y, z as w\nfrom v import u\nx, w, u, z", {"z"}),
    ("def f(a, *b, c=d, **e):\n    g = a, b, c, e\n    return g, h\nf", {"d", "h"}),
    ("x = 1\ndef f():\n    return x\nf()", set()),
    ("def f():\n    return x\nx = 1\nf()", {"x"}),
    ("def f():\n    global x\n    x = 1\nf()", {"x"}),
    ("def f():\n    y = [x for x in z]\n    return x\nf()", {"x", "z"}),
    ("def f():\n    def g():\n        return x\n    return g\nf()", {"x"}),
    ("f = lambda a: a + b", {"b"}),
    ("@d\nclass C(B):\n    x = 1\n    y = x\n    def f(self):\n        return x\nC",
     {"d", "B", "x"}),
    ("for _, n in x:\n    print(n)", {"x"}),
    ("eval('x')", None), ("%magic", None), ("_ + 1", None), ("print(dir())", None),
])
def test_the_names_that_a_cell_may_read_from_before_it(source, names):
    found = names_read(source)
    assert found == names if names is None else found - {"print"} == names


def test_values_of_the_same_content_have_the_same_digest_and_what_cannot_be_told_is_refused():
    import torch

    one, other = ([torch.arange(6.0).view(2, 3), {"a": (1, "b")}] for _ in range(2))
    assert digest_of(one) == digest_of(other)
    for change in (torch.arange(6.0).view(3, 2), torch.arange(6).view(2, 3),
                   torch.arange(6.0).view(2, 3).requires_grad_()):
        assert digest_of([change, one[1]]) != digest_of(one)
    graph = torch.ones(1, requires_grad=True) * 2
    for value in (graph, (x for x in "ab"), threading.Lock(), torch.ones(1, device="meta")):
        with pytest.raises(CannotTell):
            digest_of(value)
