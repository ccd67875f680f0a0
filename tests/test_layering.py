"""Reads every import of the package: downhill only, no cycle, and a core that needs little."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "llama_from_scratch"

# From the top of the hill down; a part imports only parts above it. Some are not written yet.
ORDER = [
    "shapes",
    "files",
    "foreign",
    "config",
    "family",
    "bundled",
    "tokenizer",
    # Modules that hold quantized or adapted weights belong here as well: `checkpoint` builds the
    # model that a file describes, and it may not import `tune` or `compress`, which come later.
    "model",
    "vision",
    "checkpoint",
    "generate",
    "train",
    "experiments",
    "kernels",
    "parallel",
    "planner",
    "tune",
    "compress",
    "lessons",
    "commands",
    "__main__",
]
# The exceptions, each allowed inside a function only, where it is executed when it is needed:
# a config asks the model that it describes, without weights, how many parameters it has.
ASKED_LATE = {("config", "model"), ("config", "vision")}
# `llama progress` shows the exercises, which no other command needs to load.
MAY_IMPORT_LESSONS_LATE = {"commands"}

CORE_MAY_IMPORT = {"torch", "numpy", "regex", "safetensors", "jaxtyping"}
# What a single module may import, late. Without ipywidgets a training shows its progress as text;
# without cloudpickle runs are trained one by one, and no function goes
# to a rank; without wandb and mlflow runs are not exported to
# these tools; without pyelftools kernels still run and only the tracer's source lines are missing;
# without playwright no browser is driven; without huggingface_hub all checkpoints on the machine
# still load; without pillow models of text do all they can; without scikit-learn there are no
# handwritten digits; and jinja2, which torch needs too, is only for the chat templates in files.
MODULES_MAY_IMPORT = {f"{PACKAGE}.kernels.emulator.debug_info": {"elftools"},
                      f"{PACKAGE}.checkpoint.hub": {"huggingface_hub"},
                      f"{PACKAGE}.experiments.verdict": {"scipy"},
                      f"{PACKAGE}.experiments.picture": {"matplotlib"},
                      f"{PACKAGE}.lessons.authoring.lab": {"playwright"},
                      f"{PACKAGE}.experiments.sweep": {"cloudpickle"},
                      f"{PACKAGE}.parallel.travel": {"cloudpickle"},
                      f"{PACKAGE}.lessons.authoring.inputs": {"cloudpickle"},
                      f"{PACKAGE}.experiments.export": {"wandb", "mlflow"},
                      f"{PACKAGE}.train.page": {"ipywidgets", "IPython"},
                      f"{PACKAGE}.tokenizer.chat_format.sandbox": {"jinja2"},
                      f"{PACKAGE}.train.digits": {"sklearn"},
                      f"{PACKAGE}.vision.images": {"PIL"}}
LESSONS_MAY_IMPORT = {"IPython", "ipywidgets", "matplotlib", "cycler", "PIL", "nbclient",
                      "nbformat", "jupyter_client", "mistune"}


class Module(NamedTuple):
    """What one source file asks for."""

    imports: list[tuple[str, bool]]
    """(dotted name, is it loaded as soon as this module is) for each import."""
    passed_on: dict[str, str]
    """In a package's __init__: the names it takes from elsewhere, and their dotted names there."""


def module_name(path, root=ROOT):
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read_module(source, module, is_package=False):
    """Every import in a source text, with those in functions and those that name a module by text.

    Imports within `if TYPE_CHECKING:` never run. They are left out of what is imported, and kept in
    what is passed on, because a package that loads its names late declares them there.
    """
    found = Module([], {})

    def visit(node, is_eager, is_run):
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                for child in node.body:
                    visit(child, is_eager, False)
                for child in node.orelse:
                    visit(child, is_eager, is_run)
                return
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                is_eager = False
            case ast.Import() | ast.ImportFrom() | ast.Call():
                for name, target in imported(node, module, is_package):
                    if is_run:
                        found.imports.append((target, is_eager))
                    if is_package and name:
                        found.passed_on[name] = target
        for child in ast.iter_child_nodes(node):
            visit(child, is_eager, is_run)

    visit(ast.parse(source), True, True)
    return found


def imported(node, module, is_package):
    """(name it gets here or "", dotted name) for each thing that a statement or a call imports."""
    match node:
        case ast.Import(names=names):
            return [(name.asname or "", name.name) for name in names]
        case ast.ImportFrom(module=base, names=names, level=level):
            base = absolute("." * level + (base or ""), module, is_package)
            # `from a import b` may mean the module a.b, which is then the true dependency.
            return [(name.asname or name.name, f"{base}.{name.name}") for name in names]
        case ast.Call(func=ast.Name(id=function) | ast.Attribute(attr=function)) \
                if function in ("import_module", "__import__"):
            base, *others = literals(node)
            if base.startswith("."):  # import_module(".b", "a")
                base = absolute(base, others[0] if others else module, bool(others))
            elif function == "__import__" and others:  # the names of its fromlist
                return [("", f"{base}.{name}") for name in others]
            return [("", base)] if base else []
    return []


def literals(call):
    """The texts among a call's arguments, also those in lists; the first is "" if it is no text."""
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    first, *rest = [[each.value for each in getattr(argument, "elts", [argument])
                     if isinstance(each, ast.Constant) and isinstance(each.value, str)]
                    for argument in arguments] or [[]]
    return [first[0] if first else "", *(text for texts in rest for text in texts)]


def absolute(name, module, is_package):
    """The dotted name that a name with leading dots means in `module`; any other name as it is."""
    base = name.lstrip(".")
    level = len(name) - len(base)
    if not level:
        return base
    stem = module.split(".")[: None if is_package and level == 1 else -(level - is_package)]
    return ".".join([*stem, *([base] if base else [])])


def read_package():
    files = sorted((ROOT / PACKAGE).rglob("*.py"))
    return {module_name(path): read_module(path.read_text(), module_name(path),
                                           path.name == "__init__.py") for path in files}


def known(target, modules):
    """The longest prefix of a dotted name that is a module, or None for another package's."""
    while target and target not in modules:
        target = target.rpartition(".")[0]
    return target or None


def needed(target, modules):
    """The modules that an imported name needs: where it is asked for, and where it comes from.

    `llama_from_scratch.train.AdamW` needs train, whose __init__ passes it on, and train.optimizer.
    """
    found = []
    while (there := known(target, modules)) and there not in found:
        found.append(there)
        name = target[len(there) + 1:].partition(".")[0]
        target = modules[there].passed_on.get(name, "")
    return found


def loaded(target, module, modules):
    """The modules whose code an eager import runs: also the packages around each, __init__ first.

    The packages around the importing module itself are running already, so they are left out,
    unless the name is one that such a package must have bound before.
    """
    found = set(needed(target, modules))
    for there in [*found]:
        while there := there.rpartition(".")[0]:
            if there in modules and not f"{module}.".startswith(f"{there}."):
                found.add(there)
    return found - {module}


def part_of(module):
    """The part a module belongs to; the root package, which only passes on `load`, is its part."""
    return module.split(".")[1] if "." in module else "checkpoint"


def uphill(modules):
    """A line for each import that does not go downhill."""
    problems = {}
    for name, module in modules.items():
        here = part_of(name)
        for target, is_eager in module.imports:
            for there in needed(target, modules):
                problem = wrong(here, part_of(there), is_eager)
                if problem:
                    line = f"{name} imports {there}: {problem}"
                    problems.setdefault((name, part_of(there)), line)
    return list(problems.values())


def wrong(here, there, is_eager):
    """Why the part `here` may not import from the part `there`, or "" if it may."""
    if here == there or (not is_eager and (here, there) in ASKED_LATE):
        return ""
    if ORDER.index(there) > ORDER.index(here):
        late = ", and imports it inside functions only" if (here, there) in ASKED_LATE else ""
        return f"{here} is above {there}{late}"
    if there == "lessons" and (is_eager or here not in MAY_IMPORT_LESSONS_LATE):
        return "only notebooks import lessons, and a command when it runs"
    return ""


def foreign(modules):
    """A line for each import of a package that the importing part may not need."""
    problems = []
    for name, module in modules.items():
        allowed = CORE_MAY_IMPORT | (LESSONS_MAY_IMPORT if part_of(name) == "lessons" else set())
        for target, is_eager in module.imports:
            top = target.split(".")[0]
            if not is_eager and top in MODULES_MAY_IMPORT.get(name, ()):
                continue
            if top != PACKAGE and top not in sys.stdlib_module_names and top not in allowed:
                problems.append(f"{name} imports {top}, which is not among {sorted(allowed)}")
    return problems


def cycle(modules):
    """One cycle of modules that load each other at import, or nothing."""
    edges = {name: set().union(*(loaded(target, name, modules)
                                 for target, is_eager in module.imports if is_eager))
             for name, module in modules.items()}
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
    heavy = ["matplotlib", "ipywidgets", "IPython", "transformers", "nbformat", "PIL",
             "sklearn"]
    core = {"model", "vision", "tokenizer", "train", "generate"}
    modules = [PACKAGE, *(module for module in read_package() if part_of(module) in core)]
    code = (f"import sys\nfor m in {modules}: __import__(m)\n"
            f"print([m for m in {heavy} if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


# --- the reader itself ----------------------------------------------------------------------------


def package_of(**sources):
    """Modules from their texts: a__b is the module a.b, and a__init is the __init__ of a."""
    modules = {PACKAGE: Module([], {})}
    for key, source in sources.items():
        path = [key] if key == "__main__" else key.removesuffix("__init").split("__")
        name = ".".join([PACKAGE, *path])
        modules[name] = read_module(source, name, key.endswith("__init"))
    return modules


@pytest.mark.parametrize("source", [
    "from llama_from_scratch.train.loop import train",
    "import llama_from_scratch.train.loop",
    "import llama_from_scratch.train.loop as steps",
    "from llama_from_scratch.train import loop",
    "from llama_from_scratch.train import *",
    "def f():\n    from ..train import loop",
    "class A:\n    async def f(self):\n        import llama_from_scratch.train",
    "from llama_from_scratch import train",
    "from llama_from_scratch import load",
    "try:\n    from llama_from_scratch.train import loop\nexcept ImportError:\n    pass",
    "import importlib\nloop = importlib.import_module('llama_from_scratch.train.loop')",
    "from importlib import import_module\nimport_module(name='llama_from_scratch.train')",
    "import importlib\nimportlib.import_module('..train', __package__)",
    "import importlib\nimportlib.import_module('.train', 'llama_from_scratch')",
    "def f():\n    return __import__('llama_from_scratch.train.loop').train.loop",
    "f = lambda: __import__('llama_from_scratch', fromlist=['train'])",
])
def test_uphill_import_is_seen_in_every_spelling(source):
    modules = package_of(model__norm=source, train__init="", train__loop="")
    assert len(uphill(modules)) == 1 and "model is above" in uphill(modules)[0]


def test_downhill_import_is_not_uphill():
    source = "from llama_from_scratch.model.norm import RMSNorm"
    assert uphill(package_of(train__loop=source, model__norm="")) == []
    dynamic = "import importlib\nimportlib.import_module('llama_from_scratch.model.norm')"
    assert uphill(package_of(train__loop=dynamic, model__norm="")) == []


def test_imports_for_type_checkers_never_run_and_their_else_does():
    source = ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
              "    from llama_from_scratch.train import loop\n")
    assert uphill(package_of(model__norm=source, train__loop="")) == []
    source += "else:\n    from llama_from_scratch.train import loop\n"
    assert len(uphill(package_of(model__norm=source, train__loop=""))) == 1


def test_a_name_that_a_package_passes_on_counts_as_the_module_it_comes_from():
    passes = "from llama_from_scratch.train.optimizer import AdamW as AdamW"
    modules = package_of(train__init=passes, train__optimizer="")
    assert needed(f"{PACKAGE}.train.AdamW", modules) == [f"{PACKAGE}.train",
                                                         f"{PACKAGE}.train.optimizer"]
    assert needed(f"{PACKAGE}.train.unknown", modules) == [f"{PACKAGE}.train"]
    assert needed(f"{PACKAGE}.train.optimizer.AdamW", modules) == [f"{PACKAGE}.train.optimizer"]
    assert needed("torch.nn", modules) == []
    twice = package_of(train__init="from .deep import a as b", train__optimizer="a = 1",
                       train__deep__init="from ..optimizer import a")
    assert needed(f"{PACKAGE}.train.b", twice)[-1] == f"{PACKAGE}.train.optimizer"


def test_names_that_a_package_loads_late_come_from_their_module_too():
    late = "def __getattr__(name):\n    from llama_from_scratch.train.loop import train\n"
    declared = "if TYPE_CHECKING:\n    from llama_from_scratch.train.loop import train\n"
    for source in (late, declared):
        modules = package_of(train__init=source, train__loop="")
        assert needed(f"{PACKAGE}.train.train", modules)[-1] == f"{PACKAGE}.train.loop"


def test_uphill_import_hidden_in_the_init_of_a_package_is_seen():
    hidden = "from llama_from_scratch.train.optimizer import AdamW as AdamW"
    user = "from llama_from_scratch.model import AdamW"
    modules = package_of(model__init=hidden, tokenizer__split="", train__optimizer="")
    assert uphill(modules) == [f"{PACKAGE}.model imports {PACKAGE}.train.optimizer: "
                               "model is above train"]
    modules = package_of(model__init=hidden, checkpoint__load=user, train__optimizer="")
    assert any("checkpoint is above train" in line for line in uphill(modules))


def test_lessons_hidden_in_the_init_of_a_package_are_seen():
    hidden = "def __getattr__(name):\n    from llama_from_scratch.lessons import check"
    user = "def f():\n    from llama_from_scratch.commands import check"
    modules = package_of(commands__init=hidden, __main__=user, lessons__check="")
    assert len(uphill(modules)) == 1 and "only notebooks import lessons" in uphill(modules)[0]


def test_nothing_but_lessons_imports_lessons_and_commands_do_so_late():
    late = "def f():\n    from llama_from_scratch.lessons import check"
    eager = "from llama_from_scratch.lessons import check"
    modules = package_of(commands__progress=eager, lessons__check="")
    assert "only notebooks import lessons" in uphill(modules)[0]
    assert uphill(package_of(commands__progress=late, lessons__check="")) == []
    assert uphill(package_of(lessons__a="from . import b", lessons__b="")) == []
    for source in (late, eager):
        assert uphill(package_of(generate__chat=source, lessons__check=""))
    assert uphill(package_of(__main__=late, lessons__check="")), "main itself is not a command"


def test_config_may_ask_the_model_late_and_not_at_import():
    eager = "from llama_from_scratch.model.transformer import Llama"
    late = f"def n_params():\n    {eager}"
    assert uphill(package_of(config=late, model__transformer="")) == []
    (problem,) = uphill(package_of(config=eager, model__transformer=""))
    assert problem.endswith("config is above model, and imports it inside functions only")
    assert uphill(package_of(config="class A:\n    " + eager, model__transformer=""))
    assert uphill(package_of(family=late, model__transformer="")), "an exception is for one part"
    assert uphill(package_of(config=late.replace("model", "train"), train__transformer=""))


def test_cycle_is_seen_and_a_late_import_breaks_it():
    late = "def f():\n    from llama_from_scratch.model import mask"
    ring = {"model__mask": "from llama_from_scratch.model import rope", "model__init": ""}
    assert cycle(package_of(**ring, model__rope="from llama_from_scratch.model import mask"))
    assert cycle(package_of(**ring, model__rope=late)) == []
    dynamic = "import importlib\nimportlib.import_module('llama_from_scratch.model.mask')"
    assert cycle(package_of(**ring, model__rope=dynamic))


def test_cycle_through_the_init_of_a_package_is_seen():
    gathers = "from llama_from_scratch.train.loop import train as train"
    asks = "from llama_from_scratch.train import train"
    modules = package_of(train__init=gathers, train__loop="from llama_from_scratch.a import b",
                         a=asks)
    assert cycle(modules)
    # Python runs train/__init__ before any of its modules, even if the import names the module.
    modules = package_of(train__init=gathers, train__loop="from llama_from_scratch.a import b",
                         train__other="", a="from llama_from_scratch.train.other import c")
    assert cycle(modules)
    assert cycle(package_of(train__init=gathers, train__loop=asks)), "its own package's name"


def test_a_package_may_gather_modules_that_import_each_other_by_their_full_names():
    gathers = ("from llama_from_scratch.train.loop import train as train\n"
               "from llama_from_scratch.train.records import Step as Step")
    modules = package_of(
        train__init=gathers, train__loop="from llama_from_scratch.train.records import Step",
        train__records="", generate__a="from llama_from_scratch.train import Step, train")
    assert cycle(modules) == []


def test_foreign_package_is_seen_even_where_it_is_imported_late():
    assert foreign(package_of(model__norm="def f():\n    import matplotlib.pyplot"))
    assert foreign(package_of(model__norm="def f():\n    return __import__('matplotlib')"))
    assert foreign(package_of(lessons__figures="import matplotlib.pyplot")) == []
    assert foreign(package_of(lessons__figures="import transformers"))
    late, tracer = "def f():\n    import elftools.elf", "kernels__emulator__debug_info"
    assert foreign(package_of(**{tracer: late})) == []
    assert foreign(package_of(kernels__launch=late))
    assert foreign(package_of(**{tracer: "import elftools.elf"}))
    assert foreign(package_of(model__norm="import math, torch.nn\nfrom os import path")) == []
