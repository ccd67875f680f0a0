"""The twins of all generations compute, write and learn what they did when this was recorded."""

import json

import pytest
from unchanged import RECORD, TWINS, files_of, losses, numbers_of

from llama_from_scratch import family

KNOWN = json.loads(RECORD.read_text())
REL, ABS = 2e-4, 2e-5  # a few times what another processor's order of addition changes


def assert_close(found, known):
    if isinstance(known, dict):
        assert found.keys() == known.keys()
        for key in known:
            assert_close(found[key], known[key])
    else:
        assert found == pytest.approx(known, rel=REL, abs=ABS)


@pytest.mark.parametrize("name", TWINS)
def test_logits_gradients_and_tokens_are_what_they_were(name):
    found, known = numbers_of(name), KNOWN["numbers"][name]
    for kind in ("logits", "packed", "gradients"):
        assert_close(found[kind], known[kind])
    assert found["greedy"] == known["greedy"] and found["sampled"] == known["sampled"]


@pytest.mark.parametrize("name", family.GENERATIONS)
def test_files_of_every_format_are_what_they_were_to_the_byte(name):
    assert files_of(name) == KNOWN["files"][name]


def test_losses_of_a_run_are_what_they_were():
    assert_close(losses(), KNOWN["losses"])
