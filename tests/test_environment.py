"""environment.yml is a thin wrapper: its few lines agree with pyproject.toml and start.py."""

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = [line.strip() for line in (ROOT / "environment.yml").read_text().splitlines()
         if not line.startswith("#")]


def constant(name):
    for node in ast.parse((ROOT / "start.py").read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"start.py has no {name}")


def test_conda_environment_names_python_pip_torch_and_the_project_and_nothing_else():
    entries = [line.removeprefix("- ") for line in LINES[LINES.index("dependencies:") + 1 :]]
    assert entries == [
        f"python{PROJECT['requires-python']}",
        "pip",
        "pip:",
        f"torch=={constant('TORCH')}",
        "-e .[dev]",
    ]


def test_oldest_python_is_the_same_everywhere():
    assert PROJECT["requires-python"] == ">={}.{}".format(*constant("OLDEST_PYTHON"))


def test_pinned_torch_is_one_the_library_accepts():
    (floor,) = [need.partition(">=")[2] for need in PROJECT["dependencies"]
                if need.startswith("torch")]
    pinned, oldest = ([int(part) for part in version.split(".")]
                      for version in (constant("TORCH"), floor))
    assert pinned >= oldest


def test_extras_that_are_installed_exist_and_dev_holds_them_all():
    extras = PROJECT["optional-dependencies"]
    installed = {*constant("LAB_EXTRAS"), *constant("TEST_EXTRAS")}
    assert installed <= extras.keys()
    (inner,) = [need for need in extras["dev"] if need.startswith(PROJECT["name"])]
    assert installed <= set(re.search(r"\[(.*)\]", inner)[1].split(","))


def test_makefile_calls_the_two_commands():
    makefile = (ROOT / "Makefile").read_text()
    assert "lab:\n\tpython3 start.py\n" in makefile
    assert "test:\n\tpython3 start.py test\n" in makefile


def test_continuous_integration_runs_the_same_command():
    script = ROOT / ".ci" / "run"
    assert script.read_text().splitlines()[-1].startswith("exec python3 start.py test")
    assert script.stat().st_mode & 0o111
