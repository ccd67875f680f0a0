"""What cannot fit is refused, what can is not."""

import dataclasses
import errno
import shutil
from collections import namedtuple

import pytest
from tiny_runs import CONFIG, make, run

from llama_from_scratch.train import loop, space

Usage = namedtuple("Usage", "total used free")


def test_memory_is_counted_in_copies_of_the_weights_and_in_logits():
    need = dict(n_logits=250, device="cpu")
    space.refuse_too_little_memory(1000, is_built=True, memory_bytes=14_000, **need)
    with pytest.raises(ValueError, match=r"1,000 parameters .* and 250 logits, need 0.0 GB"):
        space.refuse_too_little_memory(1000, is_built=True, memory_bytes=13_999, **need)
    with pytest.raises(ValueError, match="Choose a smaller model, or fewer or shorter windows"):
        space.refuse_too_little_memory(1000, is_built=False, memory_bytes=17_999, **need)
    space.refuse_too_little_memory(1000, is_built=False, memory_bytes=18_000, **need)


def test_a_run_that_cannot_fit_ends_before_its_first_step(monkeypatch):
    monkeypatch.setattr(space, "free_bytes", lambda device: 100_000)
    with pytest.raises(ValueError, match="training must fit into memory"):
        run(parts=loop.TrainParts(share=lambda batch: pytest.fail("a step was taken")))


@pytest.mark.parametrize(("changes", "n_copies"), [({}, 2), ({"checkpoint_every": 8}, 1)])
def test_a_run_whose_checkpoints_do_not_fit_ends_before_its_first_step(
    changes, n_copies, tmp_path, monkeypatch
):
    config = dataclasses.replace(CONFIG, **changes)
    n_bytes = 12 * sum(p.numel() for p in make().parameters()) + 8
    parts = loop.TrainParts(share=lambda batch: pytest.fail("a step was taken"))
    free = n_copies * n_bytes - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free, 0, free))
    with pytest.raises(space.DiskFull, match=rf"must fit onto the disk: {n_copies} of ") as caught:
        run(config=config, folder=tmp_path / "a/run", parts=parts)
    assert caught.value.errno == errno.ENOSPC, "as the system says it"
    assert list(tmp_path.iterdir()) == []
    free += 1
    run(config=config, folder=tmp_path / "a/run")
