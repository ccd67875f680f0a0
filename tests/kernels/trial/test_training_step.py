"""A whole training step, with a tiny model on the emulator."""

import json

import pytest
import torch

from llama_from_scratch import family
from llama_from_scratch.kernels.trial import timing, training_step
from llama_from_scratch.kernels.trial.training_step import (
    PRECISIONS,
    distance,
    fused_step,
    plain_step,
    training_row,
)
from llama_from_scratch.kernels.trial.whole_decoding import random_model

CPU = torch.device("cpu")
FLOORS = timing.Floors(copy_bytes_per_s=4e12, product_operations_per_s=8e14, sheet=None)
TINY = family.tiny("llama-3.2")


@pytest.fixture
def no_clock(monkeypatch):
    def once(prepare, n_repeats=1):
        for call in prepare():
            call()
        return timing.Time(median=100.0, p20=99.0, p80=101.0, is_graph=False)

    monkeypatch.setattr(timing, "time_stream", once)
    monkeypatch.setattr(timing, "floors", lambda device: FLOORS)
    monkeypatch.setattr(torch, "compile", lambda model: model)


def test_both_steps_change_the_weights_alike():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(TINY.vocab_size, (2, 9), generator=generator)
    models = [random_model(TINY, dtype=torch.float32, device=CPU).requires_grad_()
              for _ in range(2)]
    before = models[0].layers[0].attention.wq.weight.detach().clone()
    training_step.fuse(models[1], emulate=True)
    steps = (plain_step(models[0], ids[:, :-1], ids[:, 1:], is_autocast=False),
             fused_step(models[1], ids[:, :-1], ids[:, 1:], is_autocast=False, emulate=True))
    for step in steps:
        step()
    for name, p in models[0].named_parameters():
        # The optimizers differ in beta2 by default, which the first step does not depend on.
        torch.testing.assert_close(models[1].get_parameter(name), p, rtol=1e-4, atol=2e-6)
    assert not models[0].layers[0].attention.wq.weight.equal(before)


def test_the_distance_is_that_of_all_gradients_as_one_vector():
    exact = [torch.tensor([3.0, 0.0]), torch.tensor([4.0])]
    assert distance([torch.tensor([3.0, 0.5]), torch.tensor([4.0])], exact) == pytest.approx(0.1)


def test_a_rehearsal_on_the_emulator_fills_a_row_for_each_precision(no_clock, monkeypatch):
    monkeypatch.setattr(training_step.family, "config", lambda name: TINY)
    monkeypatch.setattr(training_step, "SEQ_LEN", 16)
    said = []
    first, *steps = training_step.steps(CPU)
    assert first.name == "floors" and [step.name for step in steps] == [
        *PRECISIONS, *(f"{name}, torch.compile" for name in PRECISIONS)]
    for step in steps:
        found = step.run(said.append)
        assert not found.wrong, said
        data = json.loads(json.dumps(found.data))
        (row,) = data["rows"]
        way = "torch.compile" if "compile" in step.name else "eager"
        assert [*row["ratios"]] == [f"{way}, AdamW(fused=True)"]
        assert row["n_operations"] == 3 * 4 * 16 * TINY.flops_per_token(context=8)
        assert data["tokens_per_s"] == pytest.approx(4 * 16 / 100e-6)


def test_wrong_gradients_are_found(no_clock, monkeypatch):
    plain = training_step.fused_loss
    monkeypatch.setattr(training_step, "fused_loss",
                        lambda *args, emulate: 1.05 * plain(*args, emulate=emulate))
    row = training_row(TINY, "weights in bf16", n_rows=1, seq_len=8, floors=FLOORS, device=CPU,
                       say=lambda text: None)
    assert not row.is_right and row.error_ratio > 2
