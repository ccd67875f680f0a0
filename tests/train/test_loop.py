import dataclasses
import math
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from llama4_twin import toy
from tiny_runs import BYTES, CONFIG, DATA, OTHER, equal, make, run

from llama_from_scratch.checkpoint import native
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.train import loop, resume
from llama_from_scratch.train.data import IGNORE, Packed
from llama_from_scratch.train.loop import Diverged, gradients
from llama_from_scratch.train.optimizer import AdamW
from llama_from_scratch.train.parts import TrainParts


def test_the_loss_begins_at_a_guess_among_all_tokens_and_falls():
    config = dataclasses.replace(CONFIG, n_steps=60, n_warmup=6, validate_every=20)
    history, _ = run(config=config, validation=OTHER)
    assert history.losses[0] == pytest.approx(math.log(258), abs=0.1)
    assert history.losses[-1] < 2.2
    assert [step for step, _ in history.validations] == [19, 39, 59]
    bits = [evaluation.bits_per_byte for _, evaluation in history.validations]
    assert bits[0] > bits[1] > bits[2]
    assert history.is_complete
    assert history.n_tokens[-1] == 60 * 4 * 24


def test_a_step_is_the_schedules_rate_on_the_datas_batch_clipped_and_decayed():
    """The whole loop again, in torch's own terms."""
    config = dataclasses.replace(CONFIG, max_grad_norm=0.5, weight_decay=0.2, beta1=0.8,
                                 adam_eps=1e-6, final_lr_ratio=0.3)
    history, model = run(config=config)
    twin = make()
    matrices = {"params": [p for p in twin.parameters() if p.ndim > 1], "weight_decay": 0.2}
    norms = {"params": [p for p in twin.parameters() if p.ndim == 1], "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([matrices, norms], betas=(0.8, 0.95), eps=1e-6)
    for step in history.steps:
        batch = DATA.batch(step.step, batch_size=4, seq_len=24, seed=0)
        logits = twin(batch.ids, positions=batch.positions, documents=batch.documents)
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE)
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
        # Adam magnifies roundings where gradients are near 0.
        torch.testing.assert_close(p, q, rtol=0, atol=1e-4)


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
    mean_of_means = model.norm.weight.grad / 3
    assert not torch.allclose(mean_of_means, whole["norm.weight"], rtol=0.1), "something else"


def test_a_run_in_micro_batches_has_the_losses_of_the_run_in_one(uninterrupted):
    history, _ = run(config=dataclasses.replace(CONFIG, micro_batch_size=3))
    assert history.losses == pytest.approx(uninterrupted[0].losses, abs=2e-4)


def test_bf16_trains_to_nearly_the_same_losses_and_keeps_fp32_weights(uninterrupted):
    history, model = run(config=dataclasses.replace(CONFIG, is_bf16=True))
    assert history.losses != uninterrupted[0].losses
    assert history.losses == pytest.approx(uninterrupted[0].losses, rel=0.02)
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_the_bf16_probe_answers():
    assert loop.bf16_pays_off("cpu") in (True, False)


def test_ctrl_c_in_the_middle_of_a_step_finishes_the_step_saves_and_returns(
    tmp_path, uninterrupted
):
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

    # A process that was started in the background may ignore the signal.
    outside = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(parts=TrainParts(reduce=pressed_twice))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, outside)


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
def test_a_gradient_that_is_not_finite_stops_before_it_reaches_weights_or_checkpoint(
    value, tmp_path
):
    kept = []
    model = make()
    refusal = r"at step 5, where the learning rate .* after 4 steps, is in .*run. Lower peak_lr="
    with pytest.raises(Diverged, match=refusal):
        run(model, folder=tmp_path / "run", parts=diverging(5, value),
            on_step=lambda step: kept.append([p.clone() for p in model.parameters()]))
    last_good = zip(model.parameters(), kept[4], strict=True)
    assert all(torch.equal(p, q) for p, q in last_good)
    loaded, _ = native.load(tmp_path / "run")
    assert all(torch.equal(p, q) for p, q in zip(loaded.parameters(), kept[3], strict=True))


def test_a_nan_loss_without_a_folder_says_that_nothing_was_saved():
    model = make()
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    refusal = "the loss is nan .* at step 0.* No checkpoint was saved before"
    with pytest.raises(Diverged, match=refusal):
        run(model)


def test_weights_blown_up_by_the_last_update_are_not_saved_over_the_good_ones(tmp_path):
    class Bursting(AdamW):
        def step(self, *, lr):
            super().step(lr=lr)
            if self.n_steps == 4:
                with torch.no_grad():
                    next(iter(self.groups[0].params.values()))[0, 0] = float("inf")

    parts = TrainParts(make_optimizer=lambda groups, config: Bursting(groups))
    refusal = r"update of step 3 made tok_embeddings.weight infinite .* after 2 steps"
    with pytest.raises(Diverged, match=refusal):
        run(folder=tmp_path / "run", parts=parts)
    assert all(p.isfinite().all() for p in native.load(tmp_path / "run")[0].parameters())


def test_validation_text_shorter_than_a_window_is_refused_before_the_first_step():
    seen = []
    with pytest.raises(ValueError, match="a window of seq_len=24 needs 25 tokens"):
        run(validation=Packed(["cat"], BYTES), on_step=seen.append)
    assert seen == []


NO_STEP = TrainParts(share=lambda batch: pytest.fail("a step was taken"))


def test_what_the_first_save_would_find_out_is_refused_before_the_first_step(tmp_path):
    class Plain:
        """Batches without what tells them from others."""

        def batch(self, step, **how):
            return DATA.batch(step, **how)

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("")
    for folder, message in {"mine": "also holds thesis.txt", "file": "is a file",
                            "file/run": "is a file, so", "/proc/run": "choose another place"
                            }.items():
        with pytest.raises(ValueError, match=message):
            run(folder=tmp_path / folder, parts=NO_STEP)
    with pytest.raises(ValueError, match="needs data with a tokenizer, n_documents"):
        loop.train(make(), Plain(), config=CONFIG, folder=tmp_path / "run")
    with pytest.raises(ValueError, match="Train the tokenizer and the model with the same"):
        small = Packed(["a cat"] * 9, Tokenizer.train("the cat" * 9, 262, special_tokens=(
            "<|begin_of_text|>", "<|end_of_text|>")))
        loop.train(make(), small, config=CONFIG, folder=tmp_path / "run", parts=NO_STEP)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "mine"]
    loop.train(make(), Plain(), config=CONFIG)  # nothing is saved


def test_a_fault_in_on_step_saves_the_steps_so_far_and_is_raised(tmp_path, uninterrupted):
    def fail(step):
        if step.step == 4:
            raise UnicodeEncodeError("ascii", "\u2588", 0, 1, "ordinal not in range(128)")

    with pytest.raises(UnicodeEncodeError):
        run(folder=tmp_path / "run", on_step=fail)
    assert len(resume.read(tmp_path / "run").steps) == 5
    resumed, model = run(make(seed=9), folder=tmp_path / "run", is_resumed=True)
    assert resumed.losses == uninterrupted[0].losses and equal(model, uninterrupted[1])


def test_two_runs_into_one_folder_are_one_run_and_a_refusal(tmp_path, uninterrupted):
    def second(step):
        for name in ("run", "link"):
            with pytest.raises(ValueError, match=rf"process {os.getpid()} on .* does now. Wait"):
                in_a_thread(lambda name=name: run(folder=tmp_path / name, parts=NO_STEP))

    (tmp_path / "link").symlink_to("run")
    history, _ = run(folder=tmp_path / "run", on_step=second)
    assert history.losses == uninterrupted[0].losses
    assert len(resume.read(tmp_path / "run").steps) == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "run"]


def in_a_thread(action):
    """What it returns or raises there."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(action).result()


def test_a_run_keeps_its_folder_when_its_caller_goes_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    run(folder="run", on_step=lambda step: os.chdir(tmp_path / "elsewhere"))
    assert len(resume.read(tmp_path / "home/run").steps) == 8
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_model_with_experts_learns_and_is_saved_and_read_back(tmp_path):
    """The routers move too, and experts without tokens only shrink by the decay of weights."""
    torch.manual_seed(0)
    model = Llama(toy(step=2, n_experts=8, vocab_size=258))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config = dataclasses.replace(CONFIG, n_steps=40, n_warmup=4)
    history, _ = run(model, config=config, folder=tmp_path / "run")
    assert history.losses[-1] < history.losses[0] - 1
    for name, weight in model.named_parameters():
        assert not torch.equal(weight, before[name]), name
    loaded, _ = native.load(tmp_path / "run")
    assert loaded.config == model.config and equal(loaded, model)
