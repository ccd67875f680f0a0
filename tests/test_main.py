import subprocess
import sys

import pytest

from llama_from_scratch.__main__ import COMMANDS, main
from llama_from_scratch.commands import inspect


def test_the_command_runs_as_a_process():
    command = [sys.executable, "-m", "llama_from_scratch"]
    text = subprocess.run([*command, "generate", "--prompt", "The", "--max-tokens", "4"],
                          capture_output=True, text=True, check=True)
    assert text.stdout.startswith("The") and text.stderr == ""
    wrong = subprocess.run([*command, "generate", "nowhere"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
    assert subprocess.run([*command, "explode"], capture_output=True).returncode == 2


def test_help_is_there_at_once_because_nothing_heavy_is_loaded_for_it():
    script = ("import sys\nfrom llama_from_scratch.__main__ import main\n"
              "try: main(['--help'])\nexcept SystemExit: pass\n"
              "assert 'torch' not in sys.modules and 'numpy' not in sys.modules")
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                           check=True)
    names = ("train", "compare", "generate", "chat", "tokenize", "mini", "convert", "inspect",
             "progress", "doctor")
    assert all(command in shown.stdout for command in names)


def test_a_command_is_the_module_of_its_name_and_has_help(capsys):
    for command in COMMANDS:
        name = command.__name__.rpartition(".")[2]
        with pytest.raises(SystemExit) as end:
            main([name, "--help"])
        assert end.value.code == 0 and f"usage: llama {name}" in capsys.readouterr().out


@pytest.mark.parametrize(("error", "status", "message"), [
    (KeyboardInterrupt(), 130, "\n"),
    (ValueError("no"), 2, "llama: no\n"),
    (FileNotFoundError("gone"), 2, "llama: gone\n"),
    (ZeroDivisionError("zero"), 2, "llama: zero\n"),
])
def test_what_the_user_can_fix_is_one_line_and_a_status(error, status, message, monkeypatch,
                                                       capsys):
    def run(args):
        raise error

    monkeypatch.setattr(inspect, "run", run)
    assert main(["inspect", "x"]) == status and capsys.readouterr().err == message


def test_a_bug_of_the_program_is_not_hidden(monkeypatch):
    def run(args):
        raise KeyError("a bug")

    monkeypatch.setattr(inspect, "run", run)
    with pytest.raises(KeyError):
        main(["inspect", "x"])
