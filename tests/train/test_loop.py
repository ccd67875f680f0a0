import dataclasses
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from llama_from_scratch import family
from llama_from_scratch.checkpoint import native, safetensors_file
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.train import loop
from llama_from_scratch.train.data import IGNORE, Packed
from llama_from_scratch.train.loop import Diverged, gradients, train
from llama_from_scratch.train.loss import evaluate, sum_of_nats
from llama_from_scratch.train.optimizer import AdamW, clip_gradients
from llama_from_scratch.train.parts import TrainParts
from llama_from_scratch.train.records import TrainConfig

BYTES = Tokenizer.train("", 258, special_tokens=("<|begin_of_text|>", "<|end_of_text|>"))
STORIES = [f"The {who} saw a {what}. The {what} saw the {who}, and both ran home." for who in ("cat", "dog", "old owl")
           for what in ("mouse", "cow", "very small bee")]
DATA = Packed(STORIES, BYTES)
OTHER = Packed(["The cat saw a bee."] * 3, BYTES)
CONFIG = TrainConfig(n_steps=8, batch_size=4, seq_len=24, peak_lr=1e-2, n_warmup=2, validate_every=4, checkpoint_every=2)


def make(seed=0, **changes):
    torch.manual_seed(seed)
    sizes = dict(vocab_size=258, dim=16, ffn_dim=32, max_seq_len=32, layers=family.tiny("llama-3").layers[:2])
    return Llama(dataclasses.replace(family.tiny("llama-3"), **sizes | changes))


def run(model=None, *, config=CONFIG, **options):
    model = make() if model is None else model
    return train(model, DATA, config=config, **options), model


def equal(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.fixture(scope="module")
def uninterrupted():
    return run()


def test_the_loss_begins_at_a_guess_among_all_tokens_and_falls():
    history, _ = run(config=dataclasses.replace(CONFIG, n_steps=60, n_warmup=6, validate_every=20), validation=OTHER)
    assert history.losses[0] == pytest.approx(math.log(258), abs=0.1)
    assert history.losses[-1] < 2.2
    assert [step for step, _ in history.validations] == [19, 39, 59]
    bits = [evaluation.bits_per_byte for _, evaluation in history.validations]
    assert bits[0] > bits[1] > bits[2]
    assert history.is_complete
    assert history.n_tokens[-1] == 60 * 4 * 24


def test_a_step_is_the_schedules_rate_on_the_datas_batch_clipped_and_decayed():
    """The whole loop again, in torch's own terms."""
    config = dataclasses.replace(CONFIG, max_grad_norm=0.5, weight_decay=0.2, beta1=0.8, adam_eps=1e-6, final_lr_ratio=0.3)
    history, model = run(config=config)
    twin = make()
    matrices, norms = [p for p in twin.parameters() if p.ndim > 1], [p for p in twin.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.2}, {"params": norms, "weight_decay": 0.0}],
                                  betas=(0.8, 0.95), eps=1e-6)
    for step in history.steps:
        batch = DATA.batch(step.step, batch_size=4, seq_len=24, seed=0)
        logits = twin(batch.ids, positions=batch.positions, documents=batch.documents)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        assert norm > 0.5, "clipping acts"
        for group in optimizer.param_groups:
            group["lr"] = step.lr
        optimizer.step()
        assert (step.loss, step.grad_norm) == pytest.approx((loss.item(), norm.item()), rel=1e-4)
    assert [step.lr for step in history.steps][2] == 1e-2
    assert history.steps[-1].lr == pytest.approx(3e-3)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-4)  # Adam magnifies roundings where gradients are near 0


def test_accumulated_micro_batches_equal_one_big_batch_forward_and_backward():
    batch = DATA.batch(0, batch_size=5, seq_len=24, seed=0)
    batch.targets[0, 2:] = IGNORE
    batch.targets[3] = IGNORE  # unequal numbers of targets: 2, all, all, none, all
    counts = [part.n_targets for part in batch.split(2)]
    assert len(set(counts)) == 3

    def result(micro_batch_size):
        model = make().double()
        loss = gradients(model, batch, micro_batch_size=micro_batch_size)
        return loss, {name: p.grad for name, p in model.named_parameters()}

    whole_loss, whole = result(None)
    for size in (1, 2, 3):
        loss, grads = result(size)
        assert loss == pytest.approx(whole_loss, rel=1e-6)
        torch.testing.assert_close(grads, whole, rtol=1e-5, atol=1e-7)  # the logits are fp32
    model = make().double()
    for part in batch.split(2):
        gradients(model, part)
    assert not torch.allclose(model.norm.weight.grad / 3, whole["norm.weight"], rtol=0.1), "a mean of means is something else"


def test_a_run_in_micro_batches_has_the_losses_of_the_run_in_one(uninterrupted):
    history, _ = run(config=dataclasses.replace(CONFIG, micro_batch_size=3))
    assert history.losses == pytest.approx(uninterrupted[0].losses, abs=2e-4)


def test_evaluation_is_the_mean_over_all_tokens_and_bits_per_byte_the_sum_over_all_bytes():
    model = make()
    got = evaluate(model, OTHER, batch_size=2, seq_len=7)
    nats, n_targets = 0.0, 0
    stream = torch.tensor([t for _ in range(3) for t in BYTES.encode("The cat saw a bee.", bos=True, eos=True)])
    for first in range(0, len(stream) - 1, 7):
        window = stream[first : first + 8]
        begin = 0
        for i in range(len(window) - 1):
            if window[i] == BYTES.bos_id:
                begin = i
            if window[i + 1] != BYTES.bos_id:
                log_p = model(window[None, begin : i + 1])[0, -1].log_softmax(-1)
                nats, n_targets = nats - log_p[window[i + 1]].item(), n_targets + 1
    assert got.n_targets == n_targets == 3 * 19
    assert got.n_bytes == 3 * 18
    assert got.loss == pytest.approx(nats / n_targets, rel=1e-5)
    assert got.bits_per_byte == pytest.approx(nats / (3 * 18) / math.log(2), rel=1e-5)
    assert evaluate(model, OTHER, batch_size=5, seq_len=7).loss == pytest.approx(got.loss, rel=1e-6)


def test_documents_packed_together_are_learnt_as_if_they_were_apart():
    batch = next(Packed(["cats", "dogs are nice"], BYTES).in_order(batch_size=1, seq_len=20))
    packed = sum_of_nats(make(), batch).item()
    apart = sum(sum_of_nats(make(), next(Packed([text], BYTES).in_order(batch_size=1, seq_len=len(text) + 1))).item()
                for text in ("cats", "dogs are nice"))
    assert packed == pytest.approx(apart, rel=1e-6)


def test_bf16_trains_to_nearly_the_same_losses_and_keeps_fp32_weights(uninterrupted):
    history, model = run(config=dataclasses.replace(CONFIG, is_bf16=True))
    assert history.losses != uninterrupted[0].losses
    assert history.losses == pytest.approx(uninterrupted[0].losses, rel=0.02)
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_the_bf16_probe_answers():
    assert loop.bf16_pays_off("cpu") in (True, False)


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5, 7, 8])
def test_a_run_interrupted_at_any_step_and_resumed_repeats_the_uninterrupted_one(stop_after, tmp_path, uninterrupted):
    def stop(step):
        if step.step + 1 == stop_after:
            raise KeyboardInterrupt

    first, model = run(folder=tmp_path / "run", on_step=stop)
    assert len(first.steps) == stop_after
    assert first.is_complete == (stop_after == 8)
    loaded, _ = native.load(tmp_path / "run")
    assert equal(loaded, model), "what was learnt is kept and saved"
    resumed, model = run(make(seed=9), folder=tmp_path / "run", is_resumed=True)
    expected, straight = uninterrupted
    assert resumed.losses == expected.losses
    assert [s.grad_norm for s in resumed.steps] == [s.grad_norm for s in expected.steps]
    assert equal(model, straight)
    assert resumed.steps[: stop_after] == first.steps, "the history is kept"


def test_validations_survive_a_resume(tmp_path):
    def stop(step):
        if step.step == 4:
            raise KeyboardInterrupt

    run(folder=tmp_path / "run", validation=OTHER, on_step=stop)
    resumed, _ = run(make(seed=9), folder=tmp_path / "run", validation=OTHER, is_resumed=True)
    straight, _ = run(validation=OTHER)
    assert resumed.validations == straight.validations
    assert len(straight.validations) == 2


class FailingDisk:
    """From step 3 on, the `stage`-th call that changes the disk fails."""

    def __init__(self, patch, stage):
        self.is_armed, self.left = False, stage
        for owner, name in [(os, "rename"), (os, "fsync"), (os, "replace"),
                            (safetensors_file, "save_file"), (Path, "write_text")]:
            patch.setattr(owner, name, self.wrap(getattr(owner, name)))

    def wrap(self, function):
        def wrapped(*args, **kwargs):
            if self.is_armed:
                self.left -= 1
                if self.left == 0:
                    raise OSError(28, "No space left on device")
            return function(*args, **kwargs)
        return wrapped

    def arm(self, step):
        self.is_armed = step.step >= 2


def test_a_full_disk_at_any_stage_of_a_save_costs_only_the_steps_since_the_last_one(tmp_path, monkeypatch, uninterrupted):
    for stage in range(1, 17):
        folder = tmp_path / str(stage)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
            run(folder=folder, on_step=FailingDisk(patch, stage).arm)
        resumed, model = run(make(seed=9), folder=folder, is_resumed=True)
        assert resumed.losses == uninterrupted[0].losses, f"stage {stage}"
        assert equal(model, uninterrupted[1])


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import test_loop as t
def kill(step):
    if step.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
t.run(folder={folder!r}, on_step=kill)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
def test_a_killed_process_resumes_to_the_same_losses(tmp_path, uninterrupted):
    script = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "run"))
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ | threads)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    resumed, model = run(make(seed=9), folder=tmp_path / "run", is_resumed=True)
    assert resumed.losses == uninterrupted[0].losses
    assert equal(model, uninterrupted[1])


def test_ctrl_c_in_the_middle_of_a_step_finishes_the_step_saves_and_returns(tmp_path, uninterrupted):
    def pressed(model, loss):
        if len(seen) == 3:
            signal.raise_signal(signal.SIGINT)
        return loss

    seen = []
    before = signal.getsignal(signal.SIGINT)
    history, _ = run(folder=tmp_path / "run", on_step=seen.append, parts=TrainParts(reduce=pressed))
    assert len(history.steps) == 4 and not history.is_complete
    assert signal.getsignal(signal.SIGINT) is before
    resumed, model = run(make(seed=9), folder=tmp_path / "run", is_resumed=True)
    assert resumed.losses == uninterrupted[0].losses
    assert equal(model, uninterrupted[1])


def test_a_second_ctrl_c_leaves_at_once():
    def pressed_twice(model, loss):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(parts=TrainParts(reduce=pressed_twice))
    assert signal.getsignal(signal.SIGINT) is before


def test_training_runs_in_a_thread_too(uninterrupted):
    histories = []
    thread = threading.Thread(target=lambda: histories.append(run()[0]))
    thread.start()
    thread.join()
    assert histories[0].losses == uninterrupted[0].losses


def diverging(step_number, value=float("nan")):
    """From this step on the gradient of one weight is not a number."""
    def poisoned(model, loss):
        calls.append(1)
        if len(calls) > step_number:
            model.norm.weight.grad[0] = value
        return loss

    calls = []
    return TrainParts(reduce=poisoned)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stops_before_it_reaches_weights_or_checkpoint(value, tmp_path):
    kept = []
    model = make()
    with pytest.raises(Diverged, match=r"at step 5, where the learning rate .* after 4 steps, is in .*run. Lower peak_lr=0.01"):
        run(model, folder=tmp_path / "run", parts=diverging(5, value),
            on_step=lambda step: kept.append([p.clone() for p in model.parameters()]))
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), kept[4], strict=True)), "the weights of the last good step"
    loaded, _ = native.load(tmp_path / "run")
    assert all(torch.equal(p, q) for p, q in zip(loaded.parameters(), kept[3], strict=True))


def test_a_nan_loss_without_a_folder_says_that_nothing_was_saved():
    model = make()
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    with pytest.raises(Diverged, match="the loss is nan .* at step 0.* No checkpoint was saved before"):
        run(model)


def test_weights_blown_up_by_the_last_update_are_not_saved_over_the_good_ones(tmp_path):
    class Bursting(AdamW):
        def step(self, *, lr):
            super().step(lr=lr)
            if self.n_steps == 4:
                with torch.no_grad():
                    next(iter(self.groups[0].params.values()))[0, 0] = float("inf")

    parts = TrainParts(make_optimizer=lambda groups, config: Bursting(groups))
    with pytest.raises(Diverged, match=r"update of step 3 made tok_embeddings.weight infinite .* after 2 steps"):
        run(folder=tmp_path / "run", parts=parts)
    assert all(p.isfinite().all() for p in native.load(tmp_path / "run")[0].parameters())


def test_a_new_run_does_not_replace_a_checkpoint(tmp_path):
    run(folder=tmp_path / "run")
    with pytest.raises(ValueError, match="already holds a checkpoint"):
        run(folder=tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(config=dataclasses.replace(CONFIG, seq_len=16)), "config.seq_len is 24 there and 16 here"),
        (dict(config=dataclasses.replace(CONFIG, peak_lr=1e-3, seed=4)), "peak_lr is 0.01 there and 0.001 here; config.seed"),
        (dict(model=make(ffn_dim=64)), "model.ffn_dim is 32 there and 64 here"),
        (dict(validation=OTHER), "validation is None there"),
    ],
)
def test_resuming_with_other_settings_names_the_differing_keys(change, message, tmp_path):
    run(folder=tmp_path / "run")
    with pytest.raises(ValueError, match=message):
        run(folder=tmp_path / "run", is_resumed=True, **change)


def test_resuming_with_other_data_names_it(tmp_path):
    run(folder=tmp_path / "run")
    with pytest.raises(ValueError, match=r"data.n_documents is 9 there and 8 here; data.n_tokens is .*data.digest"):
        train(make(), Packed(STORIES[1:], BYTES), config=CONFIG, folder=tmp_path / "run", is_resumed=True)


def test_resuming_needs_a_run(tmp_path):
    with pytest.raises(ValueError, match="needs a folder with the checkpoint of a run; got None"):
        run(is_resumed=True)
    with pytest.raises(ValueError, match="needs a folder with the checkpoint of a run; got .*nothing"):
        run(folder=tmp_path / "nothing", is_resumed=True)
    native.save(tmp_path / "model", make(), BYTES)
    with pytest.raises(ValueError, match="holds a model and no run to resume"):
        run(folder=tmp_path / "model", is_resumed=True)


def test_a_damaged_run_is_refused(tmp_path):
    run(folder=tmp_path / "run")
    file = tmp_path / "run/optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"whole safetensors file at .*optimizer.safetensors"):
        run(folder=tmp_path / "run", is_resumed=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(n_step=3), r"no field 'n_step'; did you mean 'n_steps'\?"),
        (dict(n_steps=0), "n_steps must be at least 1; got 0"),
        (dict(micro_batch_size=0), "micro_batch_size must be at least 1; got 0"),
        (dict(peak_lr=-1.0), "peak_lr must be above 0"),
        (dict(beta2=1.5), "beta2 must lie between 0 and 1; got 1.5"),
        (dict(seq_len=1), "seq_len must be at least 2"),
        (dict(n_warmup=8, n_steps=8), "n_warmup=8, n_steps=8"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**change)


# --- parts, exchanged one by one ----------------------------------------------------------------


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


def test_validation_text_shorter_than_a_window_is_refused_before_the_first_step():
    seen = []
    with pytest.raises(ValueError, match="a window of seq_len=24 needs 25 tokens"):
        run(validation=Packed(["cat"], BYTES), on_step=seen.append)
    assert seen == []
