import sys

import pytest

from llama_from_scratch.commands import machine


def test_foreign_kernel_of_the_user_is_seen(tmp_path, monkeypatch):
    kernel = tmp_path / "kernels" / "python3"
    kernel.mkdir(parents=True)
    foreign = sys.base_prefix + "/bin/python3"
    spec = f'{{"argv": ["{foreign}", "-m", "ipykernel_launcher"], "display_name": "x"}}'
    (kernel / "kernel.json").write_text(spec)
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    assert machine.look().kernel == sys.base_prefix


@pytest.mark.parametrize(("program", "why"), [
    ("raise OSError('libcudart.so.13: cannot open')", "OSError: libcudart.so.13: cannot open"),
    ("import os; os.abort()", "its process ended with status"),
    ("print('no json')", "its process ended with status 0"),
])
def test_program_that_crashes_or_prints_nothing_is_a_reason_not_an_exception(program, why):
    answer, words = machine._ask([sys.executable, "-c", program])
    assert answer is None and words.startswith(why)


def test_missing_program_and_endless_program_are_reasons_too(monkeypatch):
    assert machine._ask(["no-such-program"])[0] is None
    assert machine._output(["no-such-program"]) is None
    monkeypatch.setattr(machine, "TIMEOUT_S", 0.5)
    assert "timed out" in machine._ask([sys.executable, "-c", "import time; time.sleep(60)"])[1]


def test_missing_packages_are_found_by_group(monkeypatch):
    needs = ["torch>=2.6", "no-such-core", "no_such.lab<5; extra == 'notebooks'",
             "x; extra == 'dev'"]
    monkeypatch.setattr(machine.metadata, "requires", lambda name: needs)
    assert machine._missing_packages() == {"": ("no-such-core",), "notebooks": ("no_such.lab",),
                                           "test": ()}


def test_project_that_is_not_installed_has_no_list_of_missing_packages(monkeypatch):
    def requires(name):
        raise machine.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(machine.metadata, "requires", requires)
    assert machine._missing_packages() is None
