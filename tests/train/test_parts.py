import contextlib
import dataclasses

import pytest
import torch
from tiny_runs import CONFIG, DATA, equal, make, run

from llama_from_scratch.train.loop import train
from llama_from_scratch.train.loss import sum_of_nats
from llama_from_scratch.train.optimizer import clip_gradients
from llama_from_scratch.train.parts import TrainParts
from llama_from_scratch.train.records import Evaluation


def test_another_loss_is_what_is_made_small(uninterrupted):
    def doubled(model, batch, *, is_bf16):
        return 2 * sum_of_nats(model, batch, is_bf16=is_bf16)

    history, _ = run(parts=TrainParts(loss=doubled))
    assert history.losses[0] == pytest.approx(2 * uninterrupted[0].losses[0])
    assert history.steps[0].grad_norm == pytest.approx(2 * uninterrupted[0].steps[0].grad_norm)


def test_two_halves_of_a_batch_reduced_between_backward_and_step_are_the_whole(uninterrupted):
    """Two ranks in one process: each sees half of the rows, one count divides, `reduce` adds up."""
    other, losses = make(), []

    def half(batch, rank=0):
        return batch.split(len(batch.ids) // 2)[rank]

    def reduce(model, loss):
        other.load_state_dict(model.state_dict())
        other.zero_grad()
        whole = DATA.batch(len(losses), batch_size=4, seq_len=24, seed=0)
        theirs = sum_of_nats(other, half(whole, rank=1)) / whole.n_targets
        theirs.backward()
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            p.grad += q.grad
        losses.append(loss + theirs.detach())
        return losses[-1]

    history = train(make(), DATA, config=CONFIG, parts=TrainParts(share=half, reduce=reduce))
    assert history.losses == pytest.approx(uninterrupted[0].losses, abs=2e-4)
    norms = [step.grad_norm for step in uninterrupted[0].steps]
    assert [step.grad_norm for step in history.steps] == pytest.approx(norms, rel=1e-2)
    assert norms[0] == pytest.approx(history.steps[0].grad_norm, rel=1e-5)
    assert history.n_tokens == uninterrupted[0].n_tokens


def test_each_micro_batch_has_its_context_and_the_last_one_knows(uninterrupted):
    seen = []

    @contextlib.contextmanager
    def micro_batch(*, is_last):
        seen.append(is_last)
        yield
        seen.append("after backward")

    run(parts=TrainParts(micro_batch=micro_batch),
        config=dataclasses.replace(CONFIG, n_steps=1, n_warmup=0, micro_batch_size=2))
    assert seen == [False, "after backward", True, "after backward"]


def test_another_process_may_stop_the_run_and_evaluate_its_share(uninterrupted):
    asked, evaluated = [], []

    def is_stopping(is_interrupted):
        asked.append(is_interrupted)
        return len(asked) > 3

    def evaluate(model, data, **how):
        evaluated.append(how)
        return Evaluation(loss=1.5, bits_per_byte=1.0, n_targets=7, n_bytes=9)

    config = dataclasses.replace(CONFIG, validate_every=2)
    history = train(make(), DATA, config=config, validation=DATA,
                    parts=TrainParts(is_stopping=is_stopping, evaluate=evaluate))
    assert asked == [False] * 4 and len(history.steps) == 3 and not history.is_complete
    assert [step.validation.loss for step in history.steps if step.validation] == [1.5]
    assert evaluated == [dict(seq_len=24, batch_size=4, is_bf16=False)]


def test_clipping_can_be_wrapped(uninterrupted):
    lengths = []

    def clip(parameters, *, max_norm):
        lengths.append(clip_gradients(parameters, max_norm=max_norm))
        return lengths[-1]

    history, model = run(parts=TrainParts(clip=clip))
    assert [step.grad_norm for step in history.steps] == [float(length) for length in lengths]
    assert equal(model, uninterrupted[1])


def test_a_rank_that_does_not_save_trains_as_the_others_do(tmp_path, uninterrupted):
    saved = []
    parts = TrainParts(save=lambda folder, run, *, steps: saved.append(len(steps)))
    _, model = run(folder=tmp_path / "run", parts=parts)
    assert saved == [2, 4, 6, 8] and not (tmp_path / "run").exists()
    assert equal(model, uninterrupted[1])


def test_another_optimizer_trains_and_resumes(tmp_path):
    class Descent:
        """Plain gradient descent with momentum."""

        def __init__(self, groups, config):
            self.params = {name: p for group in groups for name, p in group.params.items()}
            self.speeds = {name: torch.zeros_like(p) for name, p in self.params.items()}

        def zero_grad(self):
            for p in self.params.values():
                p.grad = None

        @torch.no_grad()
        def step(self, *, lr):
            for name, p in self.params.items():
                p -= lr * self.speeds[name].mul_(0.5).add_(p.grad)

        def state_dict(self):
            return self.speeds

        def load_state_dict(self, state):
            for name, speed in self.speeds.items():
                speed.copy_(state[name])

    def stop(step):
        if step.step == 4:
            raise KeyboardInterrupt

    parts = TrainParts(make_optimizer=Descent)
    straight, model = run(parts=parts)
    run(folder=tmp_path / "run", parts=parts, on_step=stop)
    resumed, again = run(make(seed=9), folder=tmp_path / "run", parts=parts, is_resumed=True)
    assert resumed.losses == straight.losses and equal(model, again)


def test_the_fused_optimizer_is_a_drop_in(tmp_path, uninterrupted):
    from llama_from_scratch.kernels import FusedAdamW

    def make_optimizer(groups, config):
        return FusedAdamW(groups, beta1=config.beta1, beta2=config.beta2, eps=config.adam_eps,
                          emulate=True)

    parts = TrainParts(make_optimizer=make_optimizer)
    history, _ = run(folder=tmp_path / "run", parts=parts,
                     config=dataclasses.replace(CONFIG, n_steps=4, n_warmup=2))
    steps = [step.loss for step in uninterrupted[0].steps[:2]]
    assert history.losses[:2] == pytest.approx(steps, rel=1e-4)
    again, _ = run(make(seed=9), folder=tmp_path / "run", parts=parts, is_resumed=True,
                   config=dataclasses.replace(CONFIG, n_steps=4, n_warmup=2))
    assert again.losses == history.losses
