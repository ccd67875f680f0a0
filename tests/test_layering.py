"""Reads every import of the package: downhill only, no cycle, and a core that needs little."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "llama_from_scratch"

# From the top of the hill down; a part imports only what stands before it.
ORDER = [
    "shapes",
    "files",
    "config",
    "family",
    "bundled",
    "tokenizer",
    "model",
    "checkpoint",
    "generate",
    "train",
    "kernels",
    "lessons",
    "commands",
    "__main__",
]
CORE_MAY_IMPORT = {"torch", "numpy", "regex", "safetensors", "jaxtyping"}
# What a single module may import, late: without pyelftools kernels still run, only the tracer's source lines are missing;
# without huggingface_hub all checkpoints load that are on the machine.
MODULES_MAY_IMPORT = {f"{PACKAGE}.kernels.emulator.debug_info": {"elftools"},
                      f"{PACKAGE}.checkpoint.hub": {"huggingface_hub"}}
LESSONS_MAY_IMPORT = {"IPython", "ipywidgets", "matplotlib", "cycler", "PIL", "nbclient", "nbformat", "jupyter_client"}


def module_name(path, root=ROOT):
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source, module, is_package=False):
    """(module imported, is it loaded as soon as the importer is) for each import statement in a source text.

    Imports within `if TYPE_CHECKING:` are left out: they never run.
    """
    found = []

    def visit(node, is_eager):
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                return
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                is_eager = False
            case ast.Import(names=names):
                found.extend((name.name, is_eager) for name in names)
            case ast.ImportFrom(module=base, names=names, level=level):
                if level:
                    stem = module.split(".")[: None if is_package and level == 1 else -(level - is_package)]
                    base = ".".join([*stem, *([base] if base else [])])
                # `from a import b` may mean the module a.b, which is the finer and the true dependency.
                found.extend((f"{base}.{name.name}", is_eager) for name in names)
        for child in ast.iter_child_nodes(node):
            visit(child, is_eager)

    visit(ast.parse(source), True)
    return found


def read_package():
    files = sorted((ROOT / PACKAGE).rglob("*.py"))
    return {module_name(p): imports(p.read_text(), module_name(p), p.name == "__init__.py") for p in files}


def known(target, modules):
    """The longest prefix of a dotted name that is a module, or None for another package's."""
    while target and target not in modules:
        target = target.rpartition(".")[0]
    return target or None


def part_of(module):
    """The part a module belongs to; the root package, which only forwards `load`, stands where that function does."""
    return module.split(".")[1] if "." in module else "checkpoint"


def uphill(graph):
    """A line for each import that does not go downhill."""
    problems = []
    for module, targets in graph.items():
        here = part_of(module)
        for target, is_eager in targets:
            there = known(target, graph)
            if there is None or part_of(there) == here:
                continue
            if ORDER.index(part_of(there)) > ORDER.index(here):
                problems.append(f"{module} imports {there}: {here} stands above {part_of(there)}")
            elif part_of(there) == "lessons" and (here != "commands" or is_eager):
                problems.append(f"{module} imports {there}: only notebooks import lessons, and a command when it runs")
    return problems


def foreign(graph):
    """A line for each import of a package that the importing part may not need."""
    problems = []
    for module, targets in graph.items():
        allowed = CORE_MAY_IMPORT | (LESSONS_MAY_IMPORT if part_of(module) == "lessons" else set())
        for target, is_eager in targets:
            top = target.split(".")[0]
            if not is_eager and top in MODULES_MAY_IMPORT.get(module, ()):
                continue
            if top != PACKAGE and top not in sys.stdlib_module_names and top not in allowed:
                problems.append(f"{module} imports {top}, which is not among {sorted(allowed)}")
    return problems


def cycle(graph):
    """One cycle of modules that load each other at import, or nothing."""
    edges = {}
    for module, targets in graph.items():
        reached = {known(target, graph) for target, is_eager in targets if is_eager}
        # A package's __init__ may gather its own modules, which name their siblings through it.
        edges[module] = {there for there in reached if there and there != module}
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_every_part_has_its_place_in_the_order():
    parts = {part_of(module) for module in read_package()}
    assert parts <= set(ORDER), f"give {sorted(parts - set(ORDER))} a place in ORDER"


def test_every_import_goes_downhill():
    assert uphill(read_package()) == []


def test_no_modules_import_each_other():
    assert cycle(read_package()) == []


def test_core_imports_nothing_beyond_its_five_packages():
    assert foreign(read_package()) == []


def test_importing_the_package_loads_no_notebook_machinery():
    heavy = ["matplotlib", "ipywidgets", "IPython", "transformers", "nbformat", "PIL"]
    modules = [PACKAGE, *(m for m in read_package() if part_of(m) in {"model", "tokenizer", "train", "generate"})]
    code = f"import sys\nfor m in {modules}: __import__(m)\nprint([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


# --- the reader itself -----------------------------------------------------------------------------------------------


def graph_of(**sources):
    names = {name.replace("__", "."): source for name, source in sources.items()}
    modules = {f"{PACKAGE}.{name}": source for name, source in names.items()}
    return {PACKAGE: []} | {module: imports(source, module) for module, source in modules.items()}


@pytest.mark.parametrize(
    "source",
    [
        "from llama_from_scratch.train.loop import train",
        "import llama_from_scratch.train.loop",
        "from llama_from_scratch.train import loop",
        "def f():\n    from ..train import loop",
        "from llama_from_scratch import train",
        "from llama_from_scratch import load",
    ],
)
def test_uphill_import_is_seen_in_every_spelling(source):
    graph = graph_of(model__norm=source, train="", train__loop="")
    assert len(uphill(graph)) == 1 and "model stands above" in uphill(graph)[0]
    assert uphill(graph_of(train__loop="from llama_from_scratch.model.norm import RMSNorm", model__norm="")) == []


def test_nothing_but_lessons_imports_lessons():
    graph = graph_of(doctor="from llama_from_scratch.lessons import check", lessons="", lessons__check="")
    assert "only notebooks import lessons" in uphill(graph)[0]
    assert uphill(graph_of(lessons__a="from . import b", lessons__b="", lessons="")) == []
    for is_eager, n_problems in ((True, 1), (False, 0)):
        command = {f"{PACKAGE}.commands.progress": [(f"{PACKAGE}.lessons.check", is_eager)]}
        assert len(uphill(graph_of(lessons="", lessons__check="") | command)) == n_problems


def test_cycle_is_seen_and_a_late_import_breaks_it():
    late = "def f():\n    from llama_from_scratch.model import mask"
    ring = {"model__mask": "from llama_from_scratch.model import rope", "model": ""}
    assert cycle(graph_of(**ring, model__rope="from llama_from_scratch.model import mask"))
    assert cycle(graph_of(**ring, model__rope=late)) == []


def test_foreign_package_is_seen_even_where_it_is_imported_late():
    assert foreign(graph_of(model__norm="def f():\n    import matplotlib.pyplot"))
    assert foreign(graph_of(lessons__figures="import matplotlib.pyplot")) == []
    assert foreign(graph_of(lessons__figures="import transformers"))
    late, tracer = "def f():\n    import elftools.elf", "kernels__emulator__debug_info"
    assert foreign(graph_of(**{tracer: late})) == [] and foreign(graph_of(kernels__launch=late))
    assert foreign(graph_of(**{tracer: "import elftools.elf"}))
    assert foreign(graph_of(model__norm="import math, torch.nn\nfrom os import path")) == []
