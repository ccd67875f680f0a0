"""Rungs are records that are found by name, and describe what their source declares."""

import importlib

import pytest
import torch

from llama_from_scratch.kernels.machinery.ladder import ladder, rung_named
from llama_from_scratch.kernels.machinery.launch import program

rms_norm, rope, swiglu = (  # the package has functions of these names
    importlib.import_module(f"llama_from_scratch.kernels.{name}")
    for name in ("rms_norm", "rope", "swiglu"))
LADDERS = {"rms_norm": rms_norm.FORWARD_RUNGS | rms_norm.BACKWARD_RUNGS, "rope": rope.RUNGS,
           "swiglu": swiglu.RUNGS | swiglu.BACKWARD_RUNGS}


def test_rungs_are_found_by_the_names_of_their_entry_points_in_order():
    rungs = [rms_norm.RmsNormRung(entry="slow"), rms_norm.RmsNormRung(entry="fast")]
    assert list(ladder(*rungs)) == ["slow", "fast"]
    assert rung_named("fast", ladder(*rungs)) is rungs[1]


def test_a_name_that_is_no_rung_is_refused_with_the_names_there_are():
    x = torch.ones(1, 1, 1, 2)
    for call in (lambda: rms_norm.run_forward(x, x.flatten(), eps=1e-5, rung="sideways"),
                 lambda: rope.run(x, x, rotation=torch.ones(1, 1, 1) + 0j, rung="sideways"),
                 lambda: swiglu.run_forward(x, x, rung="sideways")):
        with pytest.raises(ValueError, match=r"a rung must be one of .*_1, .*; got 'sideways'"):
            call()


@pytest.mark.parametrize("name", LADDERS)
def test_every_rung_is_an_entry_point_of_its_source(name):
    assert set(LADDERS[name]) <= set(program(name, torch.float32).source.entries)


@pytest.mark.parametrize("rung", rms_norm.FORWARD_RUNGS.values(), ids=lambda rung: rung.entry)
def test_a_forward_rung_of_rms_norm_takes_what_its_record_says(rung):
    entry = program("rms_norm", torch.float32).entry(rung.entry)
    names = {parameter.name for parameter in entry.parameters}
    assert ("residual_or_null" in names) == rung.takes_residual
    assert ("n_rows" in names) == rung.takes_n_rows and entry.max_threads == rung.most_threads


@pytest.mark.parametrize("rung", rms_norm.BACKWARD_RUNGS.values(), ids=lambda rung: rung.entry)
def test_a_backward_rung_of_rms_norm_takes_what_its_record_says(rung):
    entry = program("rms_norm", torch.float32).entry(rung.entry)
    names = {parameter.name for parameter in entry.parameters}
    assert ("dsum_or_null" in names) == rung.takes_residual
    assert entry.max_threads == rung.most_threads
    assert ("partial" in names) == ("n_rows" in names) == rung.takes_n_rows == (rung.resident > 0)
