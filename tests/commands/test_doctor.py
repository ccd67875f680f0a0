import subprocess
import sys

from llama_from_scratch.__main__ import main
from llama_from_scratch.commands import machine, symptoms
from llama_from_scratch.commands.symptoms import Symptom


def test_doctor_prints_every_symptom_and_fails_if_one_is_bad(capsys, monkeypatch):
    good = Symptom(name="Python", is_ok=True, found="3.11")
    bad = Symptom(name="disk", is_ok=False, found="0 bytes free", cure="delete something")
    monkeypatch.setattr(machine, "look", lambda: None)
    monkeypatch.setattr(symptoms, "judge", lambda measured: [good])
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out == "ok       Python: 3.11\n"
    monkeypatch.setattr(symptoms, "judge", lambda measured: [good, bad])
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "PROBLEM  disk: 0 bytes free\n         -> delete something" in shown


def test_doctor_needs_no_torch_to_say_that_torch_is_missing():
    code = ("import sys; sys.modules['torch'] = None\n"
            "from llama_from_scratch.__main__ import main\nmain(['doctor'])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    verdicts = [line for line in done.stdout.splitlines() if line.startswith(("ok ", "PROBLEM "))]
    assert len(verdicts) == 12, done.stderr
