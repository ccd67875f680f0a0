"""The checks and times for GPUs, on two ranks of this machine's processors."""

import on_ranks
import pytest
import torch

from llama_from_scratch import family
from llama_from_scratch.parallel import trial


def small_throughput(world):
    return trial.throughput(world, family.tiny("llama-3.2"), rows_per_rank=1, seq_len=16, n_steps=2)


def spoiled(world):
    """The checks, with an engine whose gradients are twice too large."""
    plain = trial.ENGINES["own"]

    def doubled(model, axes, **how):
        made = plain(model, axes, **how)
        finish = made.finish_gradients

        def finish_twice():
            finish()
            for p in made.params.values():
                p.grad.mul_(2)

        made.finish_gradients = finish_twice
        return made

    trial.ENGINES["own"] = doubled
    try:
        return trial.checks(world)
    finally:
        trial.ENGINES["own"] = plain


def test_every_engine_and_stage_is_right_and_a_wrong_one_is_found():
    with on_ranks.ranks(2) as ranks:
        rows = ranks.run(trial.checks)[0]
        wrong = ranks.run(spoiled)[0]
        times = ranks.run(small_throughput)[0]
    assert {(row["engine"], row["stage"]) for row in rows} == {
        *(("own", stage) for stage in range(4)), *(("native", stage) for stage in (0, 2, 3))}
    assert len(rows) == 9 and all(row["is_right"] for row in rows)
    assert [row["is_right"] for row in wrong] == [row["engine"] == "native" for row in wrong]
    assert [row["engine"] for row in times] == ["own", "native"]
    assert all(row["tokens_per_s_and_rank"] > 0 and row["mfu"] is None for row in times)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so(tmp_path, capsys):
    assert trial.main(["--out", str(tmp_path / "results")]) == 2
    assert "no CUDA device here, so no training was checked" in capsys.readouterr().err


def test_it_runs_only_if_its_part_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("nothing must start"))
    arguments = ["--out", str(tmp_path), "--minutes", "1", "--only"]
    assert trial.main([*arguments, "attention,loss"]) == 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert trial.main([*arguments, "attention, parallel"]) == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: python3 start.py gpu --out "
                                                          "results runs it")
def test_on_gpus(tmp_path):
    assert trial.main(["--out", str(tmp_path), "--no-bench"]) == 0
    assert list(tmp_path.glob("gpu-parallel-*.json"))
