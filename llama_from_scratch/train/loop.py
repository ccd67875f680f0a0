"""The loop that learns: read a batch, predict each next token, follow the gradient of the error, again.

Everything that decides the numbers is in a `TrainConfig`, the model and the data; the batch and the learning rate follow
from the step's number, so nothing is random here and a resumed run repeats the uninterrupted one bit for bit. The loss is
one sum over one count, however the batch is divided.

Notebook 17. Source: arXiv:2302.13971, section 2.3 (optimizer and schedule of Llama 1, kept since).
"""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train import resume
from llama_from_scratch.train.data import IGNORE, Batch, Packed
from llama_from_scratch.train.optimizer import AdamW, clip_gradients, decay_groups
from llama_from_scratch.train.records import Evaluation, History, Step, TrainConfig
from llama_from_scratch.train.schedule import learning_rate


class Diverged(ArithmeticError):
    """The loss or its gradient became infinite or not a number. The model keeps the weights from before that step."""


def train(
    model: Llama, data: Packed, *, config: TrainConfig, validation: Packed | None = None, folder: str | Path | None = None,
    is_resumed: bool = False, on_step: Callable[[Step], object] | None = None,
) -> History:
    """Trains `model` in place, on the device it is on, and returns what happened at each step.

    `folder` receives a checkpoint every `config.checkpoint_every` steps and at the end; with `is_resumed` the run saved
    there goes on: the same model config, `config` and data give the same losses as if it had never stopped, bit for bit on
    a CPU with as many threads (a GPU may add in another order from run to run). `on_step` hears of every step, and may
    raise KeyboardInterrupt to end the run. An interrupt (Ctrl-C, or the notebook's stop button) ends the step in progress,
    saves a checkpoint and returns; a second one leaves at once and saves nothing.

    Raises Diverged at a loss or gradient that is not finite, before it reaches the weights or a checkpoint; ValueError if
    `folder` already holds a checkpoint and `is_resumed` is not set, or the run there differs, naming the keys.
    """
    optimizer = AdamW(decay_groups(model, weight_decay=config.weight_decay),
                      beta1=config.beta1, beta2=config.beta2, eps=config.adam_eps)
    run = resume.Run(model=model, optimizer=optimizer, config=config, data=data, validation=validation)
    steps = resume.begin(run, folder, is_resumed=is_resumed)
    n_saved = len(steps)
    with _interrupts_noted() as is_interrupted:
        while len(steps) < config.n_steps and not is_interrupted():
            steps.append(_step(run, len(steps), folder=folder, n_saved=n_saved))
            is_last = len(steps) == config.n_steps
            if on_step is not None:
                try:
                    on_step(steps[-1])
                except KeyboardInterrupt:
                    break
            if folder is not None and (is_last or len(steps) % config.checkpoint_every == 0):
                _save(run, steps, folder, n_saved=n_saved)
                n_saved = len(steps)
        if folder is not None and n_saved < len(steps):
            _save(run, steps, folder, n_saved=n_saved)
    return History(steps=tuple(steps), is_complete=len(steps) == config.n_steps)


def _step(run: "resume.Run", number: int, *, folder: str | Path | None, n_saved: int) -> Step:
    model, config = run.model, run.config
    began = time.perf_counter()
    lr = learning_rate(number, n_steps=config.n_steps, peak=config.peak_lr, n_warmup=config.n_warmup,
                       final_ratio=config.final_lr_ratio)
    batch = run.data.batch(number, batch_size=config.batch_size, seq_len=config.seq_len, seed=config.seed)
    run.optimizer.zero_grad()
    loss = gradients(model, batch, micro_batch_size=config.micro_batch_size, is_bf16=config.is_bf16)
    grad_norm = float(clip_gradients(model.parameters(), max_norm=config.max_grad_norm))
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        raise Diverged(f"the loss is {loss} and the gradient's length {grad_norm} at step {number}, where the learning rate "
                       f"is {lr:.3g}. {_last_good(folder, n_saved)} Lower peak_lr={config.peak_lr}, or lengthen the warm-up")
    run.optimizer.step(lr=lr)
    run.optimizer.zero_grad()
    time_s = time.perf_counter() - began
    is_due = number + 1 == config.n_steps or (number + 1) % config.validate_every == 0
    evaluation = None
    if run.validation is not None and is_due:
        evaluation = evaluate(model, run.validation, batch_size=config.micro_batch_size or config.batch_size,
                              seq_len=config.seq_len, is_bf16=config.is_bf16)
    return Step(step=number, loss=loss, lr=lr, grad_norm=grad_norm, n_tokens=batch.ids.numel(), time_s=time_s,
                validation=evaluation)


def gradients(model: Llama, batch: Batch, *, micro_batch_size: int | None = None, is_bf16: bool = False) -> float:
    """Adds the gradients of the batch's loss to those the parameters hold, and returns the loss in nats per token.

    The loss is the sum over all targets divided by their number in the whole batch. A mean of the micro-batches' means
    would weigh a target more, the fewer of them its micro-batch has.
    """
    device = model.device
    n_targets = batch.n_targets
    total = torch.zeros((), device=device)
    for micro in batch.split(micro_batch_size or len(batch.ids)):
        loss = sum_of_nats(model, micro.to(device), is_bf16=is_bf16) / n_targets
        loss.backward()
        total += loss.detach()
    return total.item()


def sum_of_nats(model: Llama, batch: Batch, *, is_bf16: bool = False) -> Float[Tensor, ""]:
    """-log p(target), natural logarithm, summed over the targets of the batch. The softmax and the sum are fp32.

    `is_bf16`: the matrix products of the model run in bfloat16, its norms and the weights themselves stay in fp32.
    """
    with torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=is_bf16):
        logits_BTV = model(batch.ids, positions=batch.positions, documents=batch.documents)
    return F.cross_entropy(logits_BTV.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE, reduction="sum")


@torch.no_grad()
def evaluate(model: Llama, data: Packed, *, batch_size: int, seq_len: int, is_bf16: bool = False) -> Evaluation:
    """How well the model predicts every token of `data` from those before it in its window.

    In nats per token, which depends on the tokenizer, and in bits per byte of the text, which does not: models with
    different vocabularies can be compared. The nats of end-of-text count, it stands for no byte.
    """
    device = model.device
    nats, n_targets, n_bytes = 0.0, 0, 0
    for batch in data.in_order(batch_size=batch_size, seq_len=seq_len):
        nats += sum_of_nats(model, batch.to(device), is_bf16=is_bf16).item()
        n_targets += batch.n_targets
        n_bytes += data.n_bytes_in(batch.targets)
    return Evaluation(loss=nats / n_targets, bits_per_byte=nats / n_bytes / math.log(2), n_targets=n_targets, n_bytes=n_bytes)


def bf16_pays_off(device: torch.device | str) -> bool:
    """Whether a matrix product in bfloat16 takes at most two thirds of the time in fp32 here: a probe of milliseconds.

    So on GPUs and on CPUs with matrix units for it (AMX, or bf16 vector instructions); on others bfloat16 is emulated.
    """
    x, w = (torch.ones(512, 512, device=device) for _ in range(2))
    return _product_s(x.bfloat16(), w.bfloat16()) < 2 / 3 * _product_s(x, w)


def _product_s(x: Tensor, w: Tensor) -> float:
    times = []
    for _ in range(6):
        began = time.perf_counter()
        (x @ w)[0, 0].item()  # waits for a GPU
        times.append(time.perf_counter() - began)
    return min(times)


def _save(run: "resume.Run", steps: list[Step], folder: str | Path, *, n_saved: int) -> None:
    """A checkpoint, unless the last update blew the weights up, which the loss would show only at the next step."""
    if bad := [name for name, p in run.model.named_parameters() if not torch.isfinite(p).all()]:
        raise Diverged(f"the update of step {len(steps) - 1} made {', '.join(bad[:3])} infinite or not a number, so this state "
                       f"is not saved. {_last_good(folder, n_saved)} Lower peak_lr={run.config.peak_lr}")
    resume.save(folder, run, steps=steps)


def _last_good(folder: str | Path | None, n_saved: int) -> str:
    if folder is None or n_saved == 0:
        return "No checkpoint was saved before."
    return f"The last good checkpoint, after {n_saved} steps, is in {folder}."


@contextlib.contextmanager
def _interrupts_noted() -> Iterator[Callable[[], bool]]:
    """Lets the first Ctrl-C only be noted, so that it never stops an update half way; the second one acts as usual."""
    noted = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives them
        yield noted.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def note(signum, frame):
        noted.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield noted.is_set
    finally:
        signal.signal(signal.SIGINT, before)
