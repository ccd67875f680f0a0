"""Every contest runs on the emulator, and its default is one of its candidates."""

import pytest
import torch

from llama_from_scratch.kernels.trial import contests, timing
from llama_from_scratch.kernels.trial.tuning import Contest, decide

CPU = torch.device("cpu")
CONTESTS = contests.contests(CPU)
SMALL = {"rms_norm": (4, 128), "swiglu": (4, 128), "rope": (1, 4, 4, 2, 32),
         "decode_attention": (2, 300, 4, 2, 64), "attention": (1, 8, 8, 2, 1, 64),
         "linear_cross_entropy": (6, 16, 64),
         "int8_linear": (1, 16, 512), "int4_linear": (1, 16, 1024)}


@pytest.mark.parametrize("full", CONTESTS, ids=lambda contest: contest.name)
def test_every_contest_runs_on_the_emulator_with_its_default(full, monkeypatch):
    def timed(prepare):
        for call in prepare():
            call()
        return timing.Time(median=1.0, p20=1.0, p80=1.0)

    monkeypatch.setattr(timing, "time_graph", timed)
    monkeypatch.setattr(timing, "L2_BYTES", 1)
    size = next(size for name, size in SMALL.items() if full.name.startswith(name))
    small = Contest(**{**vars(full), "size": size, "checked": None})
    found = decide(small, device=CPU, say=lambda text: None)
    assert full.default in found.times and len(found.times) > (full.name[:9] != "attention")
    # A candidate may refuse a size, but none may be wrong.
    assert all(line.startswith("ValueError") for line in found.complaints.values()), found


def test_a_scalar_rung_of_attention_takes_part_only_if_nothing_is_faster():
    for contest in CONTESTS:
        names = [candidate.name for candidate in contest.candidates]
        assert contest.default in names
        if contest.name.startswith("attention "):
            assert not {"naive", "scalar"} & {*names} and len(names) > 1
    assert contests._fast(contests.ATTENTION_RUNGS, "scalar")[0] == "scalar"


def test_names_are_different_and_the_large_checks_are_small():
    assert len({contest.name for contest in CONTESTS}) == len(CONTESTS)
    for contest in CONTESTS:
        assert (contest.checked is not None) == contest.fits_cache
