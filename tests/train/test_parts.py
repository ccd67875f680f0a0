import dataclasses

import pytest
import torch
from tiny_runs import CONFIG, DATA, equal, make, run

from llama_from_scratch.train.loop import train
from llama_from_scratch.train.loss import sum_of_nats
from llama_from_scratch.train.optimizer import clip_gradients
from llama_from_scratch.train.parts import TrainParts


def test_another_loss_is_what_is_made_small(uninterrupted):
    def doubled(model, batch, *, is_bf16):
        return 2 * sum_of_nats(model, batch, is_bf16=is_bf16)

    history, _ = run(parts=TrainParts(loss=doubled))
    assert history.losses[0] == pytest.approx(2 * uninterrupted[0].losses[0])
    assert history.steps[0].grad_norm == pytest.approx(2 * uninterrupted[0].steps[0].grad_norm)


def test_two_halves_of_a_batch_reduced_between_backward_and_step_are_the_whole(uninterrupted):
    """Two ranks in one process: each sees half of the rows, one count divides, `reduce` adds up."""
    class Half:
        def __init__(self, rank):
            self.rank = rank

        def batch(self, step, *, batch_size, seq_len, seed):
            whole = DATA.batch(step, batch_size=batch_size, seq_len=seq_len, seed=seed)
            counts.append(whole.n_targets)
            return whole.split(batch_size // 2)[self.rank]

    counts, other = [], make()

    def reduce(model, loss):
        other.load_state_dict(model.state_dict())
        other.zero_grad()
        batch = Half(1).batch(len(losses), batch_size=4, seq_len=24, seed=0)
        theirs = sum_of_nats(other, batch) / counts[-1]
        theirs.backward()
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            p.grad += q.grad
        losses.append(loss + theirs.detach())
        return losses[-1]

    losses, model = [], make()
    history = train(model, Half(0), config=CONFIG,
                    parts=TrainParts(reduce=reduce, count_targets=lambda batch: counts[-1]))
    assert history.losses == pytest.approx(uninterrupted[0].losses, abs=2e-4)
    norms = [step.grad_norm for step in uninterrupted[0].steps]
    assert [step.grad_norm for step in history.steps] == pytest.approx(norms, rel=1e-2)
    assert norms[0] == pytest.approx(history.steps[0].grad_norm, rel=1e-5)


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
