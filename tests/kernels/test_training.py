"""Training with kernels, which the emulator executes, against the plain training."""

import dataclasses
from functools import partial

import pytest
import torch
from seeing_twin import IMAGE, loud, pictures
from tiny_runs import BYTES, CONFIG, DATA, OTHER, make
from torch import nn

from llama_from_scratch.kernels import training
from llama_from_scratch.kernels.adamw import FusedAdamW
from llama_from_scratch.kernels.training import (
    fuse_training,
    fused_parts,
    fused_sum_of_nats,
    reason_against,
)
from llama_from_scratch.train import loop
from llama_from_scratch.train.images import image_batch
from llama_from_scratch.train.loop import train
from llama_from_scratch.train.loss import evaluate, sum_of_nats
from llama_from_scratch.train.optimizer import AdamW
from llama_from_scratch.train.records import TrainConfig

STEPS = 5
SHORT = dataclasses.replace(CONFIG, n_steps=STEPS, checkpoint_every=2, validate_every=3)


def trained(*, is_fused, config=SHORT, model=None, **options):
    """Returns the steps and the model."""
    model = make() if model is None else model
    parts = fuse_training(model, emulate=True)[1] if is_fused else None
    return train(model, DATA, config=config, parts=parts, **options).steps, model


def losses(steps):
    return torch.tensor([step.loss for step in steps])


def require_close(ours, plain, *, tolerance=2e-5):
    torch.testing.assert_close(losses(ours), losses(plain), rtol=tolerance, atol=0)
    assert ours[-1].loss < 0.9 * ours[0].loss, "the run has learned something"


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_fused_run_has_the_losses_of_the_plain_run(is_tied):
    (ours, fused), (plain, model) = (
        trained(is_fused=each, model=make(is_tied=is_tied), validation=OTHER)
        for each in (True, False))
    require_close(ours, plain)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(fused.get_parameter(name), weight, rtol=1e-3, atol=2e-5)
    for mine, theirs in zip(ours, plain, strict=True):
        assert (mine.validation is None) == (theirs.validation is None)
        if mine.validation:
            assert mine.validation.loss == pytest.approx(theirs.validation.loss, rel=2e-5)


def test_micro_batches_and_bf16_products_change_a_fused_run_as_they_change_the_plain_one():
    config = dataclasses.replace(SHORT, is_bf16=True, micro_batch_size=3)
    require_close(*(trained(is_fused=each, config=config)[0] for each in (True, False)),
                  tolerance=5e-3)


@pytest.mark.parametrize("begins_fused", [True, False])
def test_a_run_begun_with_or_without_kernels_is_resumed_the_other_way(begins_fused, tmp_path):
    whole, _ = trained(is_fused=False)
    def stop(step):
        if step.step == 2:
            raise KeyboardInterrupt

    trained(is_fused=begins_fused, folder=tmp_path / "run", on_step=stop)
    steps, _ = trained(is_fused=not begins_fused, folder=tmp_path / "run", is_resumed=True,
                       model=make(seed=1))
    assert len(steps) == STEPS
    require_close(steps, whole)


def test_the_parts_are_the_fused_loss_and_the_fused_optimizer():
    parts = fused_parts(emulate=True)
    model = make()
    settings = dict(beta1=0.8, beta2=0.9, adam_eps=1e-6)
    optimizer = parts.make_optimizer(loop.decay_groups(model, weight_decay=0.1),
                                     dataclasses.replace(CONFIG, **settings))
    assert type(optimizer) is FusedAdamW
    assert (optimizer.beta1, optimizer.beta2, optimizer.eps) == tuple(settings.values())
    assert isinstance(parts.loss, partial) and parts.loss.func is fused_sum_of_nats
    assert parts.evaluate.keywords["loss"] is parts.loss
    report, _ = fuse_training(model, emulate=True)
    assert report.n_fused == len(report.changes) > 4


def test_the_fused_loss_and_its_gradients_equal_the_plain_ones():
    batch = next(DATA.in_order(batch_size=3, seq_len=20))
    found = []
    for loss in (sum_of_nats, partial(fused_sum_of_nats, emulate=True)):
        model = make()
        nats = loss(model, batch, is_bf16=False)
        nats.backward()
        found.append((nats.detach(), [p.grad for p in model.parameters()]))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-6, atol=0)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-4, atol=1e-5)


def test_the_fused_loss_multiplies_in_bf16_where_the_plain_one_does():
    batch, model = next(DATA.in_order(batch_size=3, seq_len=20)), make()
    plain, ours = (loss(model, batch, is_bf16=True).item()
                   for loss in (sum_of_nats, partial(fused_sum_of_nats, emulate=True)))
    assert ours == pytest.approx(plain, rel=1e-6)
    assert ours != pytest.approx(sum_of_nats(model, batch).item(), rel=1e-5)


def test_the_fused_loss_sees_images():
    prompts, answers = [[1, IMAGE, 5, 6], [1, IMAGE, 7]], [[11, 3], [12, 13, 3]]
    batch = image_batch(prompts, answers, images=pictures([[6], [2]]), image_rows=[0, 1])
    model = loud()
    expected = sum_of_nats(model, batch)
    torch.testing.assert_close(fused_sum_of_nats(model, batch, emulate=True), expected)
    other = dataclasses.replace(batch, images=pictures([[2], [6]]))
    assert abs(fused_sum_of_nats(model, other, emulate=True) - expected) > 1e-3


def test_validation_takes_the_loss_that_it_is_given():
    model = make()
    plain = evaluate(model, OTHER, batch_size=2, seq_len=7)
    assert fused_parts(emulate=True).evaluate(
        model, OTHER, batch_size=2, seq_len=7).loss == pytest.approx(plain.loss, rel=1e-6)
    doubled = evaluate(model, OTHER, batch_size=2, seq_len=7,
                       loss=lambda *args, **how: 2 * sum_of_nats(*args, **how))
    assert doubled.loss == pytest.approx(2 * plain.loss, rel=1e-6)


def test_only_a_loss_that_holds_all_logits_needs_memory_for_them(monkeypatch):
    asked = []
    monkeypatch.setattr(loop, "refuse_too_little_memory",
                        lambda *args, n_logits, **how: asked.append(n_logits))
    once = TrainConfig(n_steps=1, batch_size=4, seq_len=24, peak_lr=1e-2, n_warmup=0,
                       validate_every=1, checkpoint_every=1)
    for is_fused in (False, True):
        trained(is_fused=is_fused, config=once)
    assert asked == [4 * 24 * BYTES.vocab_size, 0]


@pytest.mark.parametrize("output", [nn.Linear(16, 258, bias=True), nn.Identity()], ids=str)
def test_another_output_layer_is_refused(output):
    model = make()
    model.output = output
    with pytest.raises(ValueError, match=r"must be an nn.Linear without bias.*sum_of_nats"):
        fused_sum_of_nats(model, next(DATA.in_order(batch_size=1, seq_len=9)), emulate=True)


def test_kernels_are_refused_on_the_cpu_without_emulation():
    with pytest.raises(ValueError, match="fuse runs on a CUDA device"):
        fuse_training(make())


@pytest.fixture
def a_gpu(monkeypatch):
    def pretend(capability):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a Pascal card")
    return pretend


def test_the_reason_against_kernels_is_the_device_its_age_or_the_compiler(a_gpu, monkeypatch):
    assert reason_against("cpu") == "kernels run on CUDA devices, and the device is cpu"
    a_gpu((6, 1))
    assert "7.5 or newer, and a Pascal card has 6.1" in reason_against("cuda:0")
    a_gpu((9, 0))

    def missing():
        raise RuntimeError("no NVRTC was found")

    monkeypatch.setattr(training.nvrtc, "compiler", missing)
    assert reason_against("cuda") == "no NVRTC was found"


def test_a_recent_gpu_with_a_compiler_has_no_reason_against_kernels(a_gpu, monkeypatch):
    a_gpu((9, 0))

    class Compiler:
        def architecture(self, capability):
            return "sm_90"

    monkeypatch.setattr(training.nvrtc, "compiler", Compiler)
    assert reason_against("cuda") == ""


def test_the_plain_optimizer_loads_what_the_fused_one_saves():
    fused, plain = (make() for _ in range(2))
    groups = [loop.decay_groups(model, weight_decay=0.1) for model in (fused, plain)]
    ours, theirs = fused_parts(emulate=True).make_optimizer(groups[0], CONFIG), AdamW(groups[1])
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
