"""`llama compare`: two runs of the same settings, and what was changed in one of them."""

import dataclasses
import json
import shutil

import pytest
from tiny_runs import CONFIG, run

from llama_from_scratch.__main__ import main


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two equal runs, one with another seed, and a shorter one."""
    root = tmp_path_factory.mktemp("runs")
    for name in ("one", "two"):
        run(folder=root / name, config=dataclasses.replace(CONFIG, n_steps=4))
    run(folder=root / "seed", config=dataclasses.replace(CONFIG, n_steps=4, seed=1))
    run(folder=root / "longer", config=dataclasses.replace(CONFIG, n_steps=4))
    shutil.copytree(root / "one", root / "off")
    shutil.copytree(root / "one", root / "shorter")
    for name in ("off", "shorter"):
        file = root / name / "training.json"
        training = json.loads(file.read_text())
        if name == "off":
            training["steps"][2]["grad_norm"] *= 1 + 1e-9
            training["steps"][3]["loss"] *= 1 + 1e-7
        else:
            del training["steps"][3:]
        file.write_text(json.dumps(training))
        (root / name / "checksums.json").unlink()
    return root


def compared(capsys, runs, first, second, *options):
    status = main(["compare", str(runs / first), str(runs / second), *options])
    return status, capsys.readouterr().out


def test_equal_runs_are_equal_bit_for_bit(runs, capsys):
    assert compared(capsys, runs, "one", "two", "--assert-equal") == (
        0, "equal bit for bit: 4 steps\n")


def test_the_first_difference_is_shown_with_both_values(runs, capsys):
    status, said = compared(capsys, runs, "one", "off", "--assert-equal")
    steps = json.loads((runs / "one/training.json").read_text())["steps"]
    assert status == 1
    assert said.startswith("not equal bit for bit: step 2: grad_norm is "
                           f"{steps[2]['grad_norm']!r} in the first run and ")
    assert "the first 2 steps are equal; 2 of 4 differ, most at step 3: loss is" in said
    assert compared(capsys, runs, "one", "off")[0] == 0, "without --assert-equal it only tells"


def test_a_tolerance_is_stated(runs, capsys):
    status, said = compared(capsys, runs, "one", "off", "--assert-equal", "--tolerance", "1e-8")
    assert status == 1 and said.startswith("not equal within 1e-08: step 3: loss")
    assert compared(capsys, runs, "one", "off", "--assert-equal", "--tolerance", "1e-6") == (
        0, "equal within 1e-06: 4 steps\n")


def test_other_settings_are_named_first(runs, capsys):
    status, said = compared(capsys, runs, "one", "seed", "--assert-equal")
    assert status == 1
    assert said.startswith("their settings differ: config.seed is 0 there and 1 here\nnot equal")


def test_a_run_with_fewer_steps_is_not_equal(runs, capsys):
    status, said = compared(capsys, runs, "one", "shorter", "--assert-equal")
    assert status == 1 and "step 3: loss is" in said and "missing in the second" in said
    assert said.endswith("the first run has 4 steps and the second 3; those that both have are "
                         "equal bit for bit\n")


@pytest.mark.parametrize(("options", "message"), [
    (["--tolerance", "-1"], "a tolerance is a relative difference, from 0 on; got -1.0"),
    (["nowhere"], "comparing needs a folder with the checkpoint of a run; got nowhere")])
def test_what_the_user_can_fix_is_one_line_and_status_2(runs, options, message, refused):
    second = [] if options == ["nowhere"] else [str(runs / "two")]
    refused(["compare", str(runs / "one"), *second, *options], message)
