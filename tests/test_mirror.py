"""The tests mirror the library: one module, one test, the same path; and a name means one thing.

Also here: what else is true of every source file, that its lines are at most 100 characters long.
"""

import ast
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY, TESTS = "llama_from_scratch", "tests"
MAX_LINE = 100

# Tests in a part's folder that belong to no single module, each with the reason.
OF_NO_MODULE = {
    "tests/browser/test_browser.py": "moves every widget of every notebook in a real browser",
    "tests/browser/test_reader.py": "goes through chapters as a reader does",
    "tests/checkpoint/test_llama_cpp.py": "compares with another program, over two formats",
    "tests/kernels/emulator/test_async.py": "of three headers: async.h, tensor_cores.h, hopper.h",
    "tests/kernels/emulator/test_planted_bugs.py": "every tool of the emulator at once",
    "tests/kernels/test_attention_hopper.py": "plants bugs in a .cu file that attention.py runs",
    "tests/kernels/test_attention_mma.py": "plants bugs in a .cu file that attention.py runs",
    "tests/model/test_llama4.py": "all parts of a text Llama 4 together, against transformers",
    "tests/parallel/test_four_d.py": "all dimensions of a mesh at once, on up to 16 ranks",
    "tests/notebooks/test_conftest.py": "how stored outputs are compared, in notebooks/conftest.py",
}
# Modules in these folders have one test together, each with the reason.
TESTED_TOGETHER = {
    "llama_from_scratch/lessons/mistakes/": "lists, each entry of which its notebook's proof runs",
}


def path_of_test(module):
    """The path of the test that belongs to a module's path; __main__ has test_main."""
    *folders, name = module.removeprefix(f"{LIBRARY}/").removesuffix(".py").split("/")
    return "/".join([TESTS, *folders, f"test_{name.strip('_')}.py"])


def gaps(modules, tests, of_no_module):
    """A line for each module without its test, and for each test without its module.

    Paths from the repository's root. A test of an __init__ is allowed and need not be there. Tests
    directly in tests/ may be of anything, such as the README or the order of the parts.
    """
    modules = sorted(modules)
    expected = {path_of_test(path): path for path in modules}
    found = [f"{path} has no test: it belongs in {test}" for test, path in expected.items()
             if test not in tests and not path.endswith("/__init__.py")
             and not path.startswith(tuple(TESTED_TOGETHER))]
    for path in sorted(tests):
        is_test = path.count("/") > 1 and path.rsplit("/", 1)[1].startswith("test_")
        if is_test and path not in expected and path not in of_no_module:
            found.append(f"{path} has no module: it would test {module_path(path)}")
        elif path in expected and path in of_no_module:
            found.append(f"{path} has a module, {expected[path]}: take it out of OF_NO_MODULE")
    found += [f"{path} is in OF_NO_MODULE and does not exist"
              for path in sorted(set(of_no_module) - set(tests))]
    return found


def module_path(test):
    """The path of the module that a test's path belongs to."""
    *folders, name = test.removeprefix(f"{TESTS}/").split("/")
    return "/".join([LIBRARY, *folders, name.removeprefix("test_")])


def shared_names(sources):
    """A line for each public top-level class name that two modules define; `sources` by path."""
    homes = {}
    for path, source in sorted(sources.items()):
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(path)
    return [f"{name} is a class in {' and '.join(paths)}" for name, paths in sorted(homes.items())
            if len(paths) > 1]


def long_lines(path, text):
    """A line for each line of a text that is too long; one with an address may be."""
    return [f"{path}:{number} has {len(line)} characters"
            for number, line in enumerate(text.splitlines(), 1)
            if len(line) > MAX_LINE and "://" not in line]


def python_files(folder):
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py")}


def test_every_module_has_its_test_and_every_test_its_module():
    assert gaps(python_files(LIBRARY), python_files(TESTS), OF_NO_MODULE) == []


def test_no_two_public_classes_of_the_library_share_a_name():
    sources = {path: (ROOT / path).read_text("utf-8") for path in python_files(LIBRARY)}
    assert shared_names(sources) == []


@pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"),
                    reason="which files are tracked is known to git alone")
def test_no_line_of_a_python_file_is_too_long():
    listed = subprocess.run(["git", "ls-files", "-z", "*.py"], cwd=ROOT, capture_output=True,
                            text=True, check=True).stdout.split("\0")
    paths = [path for path in listed if path and (ROOT / path).exists()]
    assert len(paths) > 100, paths
    assert [line for path in paths
            for line in long_lines(path, (ROOT / path).read_text("utf-8"))] == []


# --- the checker itself ---------------------------------------------------------------------------

MODULES = {"llama_from_scratch/__init__.py", "llama_from_scratch/config.py",
           "llama_from_scratch/__main__.py", "llama_from_scratch/model/__init__.py",
           "llama_from_scratch/model/rope.py", "llama_from_scratch/model/deep/rope.py"}
MIRROR = {"tests/test_config.py", "tests/test_main.py", "tests/model/test_rope.py",
          "tests/model/deep/test_rope.py"}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_path_of_a_test_leads_back_to_its_module(module):
    assert module_path(path_of_test(module)) == module.replace("__", "")


def test_a_mirror_without_gaps_has_none():
    assert gaps(MODULES, MIRROR, {}) == []
    more = {"tests/conftest.py", "tests/model/conftest.py", "tests/helper.py",
            "tests/test_readme.py", "tests/model/test_init.py", "tests/test_init.py"}
    assert gaps(MODULES, MIRROR | more, {}) == [], "helpers, tests of the house and of an __init__"


@pytest.mark.parametrize("missing", sorted(MIRROR))
def test_a_module_without_its_test_is_named_with_the_place_of_the_test(missing):
    (line,) = gaps(MODULES, MIRROR - {missing}, {})
    assert line.endswith(f"has no test: it belongs in {missing}")


def test_a_test_in_another_folder_than_its_module_is_two_gaps():
    moved = MIRROR - {"tests/model/deep/test_rope.py"} | {"tests/model/test_deep_rope.py"}
    first, second = gaps(MODULES, moved, {})
    assert "model/deep/rope.py has no test" in first
    assert second == ("tests/model/test_deep_rope.py has no module: "
                      "it would test llama_from_scratch/model/deep_rope.py")


def test_a_test_of_no_module_must_be_listed_and_the_list_must_be_true():
    browser = "tests/browser/test_browser.py"
    assert len(gaps(MODULES, MIRROR | {browser}, {})) == 1
    assert gaps(MODULES, MIRROR | {browser}, {browser: "why"}) == []
    assert gaps(MODULES, MIRROR, {browser: "why"}) == [
        f"{browser} is in OF_NO_MODULE and does not exist"]
    (line,) = gaps(MODULES, MIRROR, {"tests/model/test_rope.py": "why"})
    assert line.endswith("take it out of OF_NO_MODULE")


def test_two_classes_of_one_name_are_seen_and_private_or_inner_ones_are_not():
    same = {"a.py": "class Step: pass", "b.py": "class Step: pass"}
    assert shared_names(same) == ["Step is a class in a.py and b.py"]
    for other in ("class _Step: pass", "class A:\n    class Step: pass",
                  "def f():\n    class Step: pass", "from a import Step"):
        assert shared_names(same | {"b.py": other}) == []
    private = {"a.py": "class _Step: pass", "b.py": "class _Step: pass"}
    assert shared_names(private) == []


def test_a_long_line_is_seen_unless_it_holds_an_address():
    assert long_lines("a.py", "x" * 100 + "\n" + "é" * 100) == []
    assert long_lines("a.py", "x\n" + "y" * 101) == ["a.py:2 has 101 characters"]
    assert long_lines("a.py", "# https://" + "x" * 200) == []
