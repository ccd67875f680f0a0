"""The training loop: read a batch, predict each next token, step against the loss's gradient.

The model, the data and a `TrainConfig` decide all numbers. The batch and the learning rate follow
from the step's number, so nothing is random here, and a resumed run repeats the uninterrupted one
bit for bit. The loss is one sum divided by one count, however the batch is divided. A step consists
of `TrainParts`, which can be wrapped or exchanged one by one.

Notebook 17. Source: arXiv:2302.13971, section 2.3 (optimizer and schedule of Llama 1, kept since).
"""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llama_from_scratch.checkpoint import native
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train import resume
from llama_from_scratch.train.data import Batch
from llama_from_scratch.train.optimizer import decay_groups
from llama_from_scratch.train.parts import TrainParts, its_own_word
from llama_from_scratch.train.protocols import Data, SavedData, StepBatch, Validation
from llama_from_scratch.train.records import History, Step, TrainConfig
from llama_from_scratch.train.space import refuse_full_disk, refuse_too_little_memory


class Diverged(ArithmeticError):
    """The loss or its gradient became infinite or not a number.

    The model keeps the weights from before that step.
    """


def train(
    model: Llama, data: Data, *, config: TrainConfig, validation: Validation | None = None,
    folder: str | Path | None = None, is_resumed: bool = False,
    on_step: Callable[[Step], object] | None = None, parts: TrainParts | None = None,
    source: dict[str, Any] | None = None,
) -> History:
    """Trains `model` in place, on the device it is on, and returns what happened at each step.

    `folder` receives a checkpoint every `config.checkpoint_every` steps and at the end. No other
    process may write there meanwhile. With `is_resumed`, the run saved there continues. The same
    model config, `config` and data give the same losses as if it had never stopped, bit for bit on
    a CPU with as many threads. (A GPU may add in another order from run to run.) With another
    `n_steps`, the rest of the run has the learning rates of a run of that length. How often it
    saves and validates may change as well. `on_step` is called after every step. It may raise
    KeyboardInterrupt to end the run; after any other error, the steps so far are saved and the
    error is raised. An interrupt (Ctrl-C, or the notebook's stop button) ends the run after the
    step in progress, with a checkpoint. A second interrupt ends it at once and saves nothing.
    `parts`: the parts of a step, by default the ones of the course. `source`: JSON that is saved
    with the run, for the code that resumes it; see `resume.read`.

    Raises Diverged if a loss or gradient is not finite, before it reaches the weights or a
    checkpoint. Raises ValueError before the first step if `folder` already holds a checkpoint and
    `is_resumed` is not set, if the run there differs (naming the keys), if checkpoints cannot be
    written there or do not fit, or if `model` or the data cannot be trained on.
    """
    parts = TrainParts() if parts is None else parts
    if not isinstance(model, Llama):
        raise ValueError(f"train needs a Llama; got a {type(model).__name__}. Build one: "
                         "Llama(config)")
    if not isinstance(data, Data):
        raise ValueError(f"train needs data that makes batches; got a {type(data).__name__}. "
                         "From texts: Packed(documents, tokenizer)")
    if folder is not None and parts.save is resume.save and not isinstance(data, SavedData):
        raise ValueError("a run that is saved needs data with a tokenizer, n_documents, n_tokens "
                         f"and a digest, such as Packed; got a {type(data).__name__}. "
                         "Train without a folder, or exchange parts.save")
    if validation is not None:
        next(validation.in_order(batch_size=1, seq_len=config.seq_len))  # refuses a short text
    rows = min(config.micro_batch_size or config.batch_size, config.batch_size)
    refuse_too_little_memory(
        sum(p.numel() for _, p in parts.weights(model)), device=model.device, is_built=True,
        n_logits=rows * config.seq_len * model.config.vocab_size if parts.holds_logits else 0)
    optimizer = parts.make_optimizer(decay_groups(model, weight_decay=config.weight_decay), config)
    run = resume.OngoingRun(model=model, optimizer=optimizer, config=config, data=data,
                            validation=validation, source=source)
    if folder is None:
        return _train(run, parts, None, is_resumed=is_resumed, on_step=on_step)
    with parts.hold(folder) as place:
        return _train(run, parts, place, is_resumed=is_resumed, on_step=on_step)


def _train(
    run: resume.OngoingRun, parts: TrainParts, folder: Path | None, *, is_resumed: bool,
    on_step: Callable[[Step], object] | None,
) -> History:
    config = run.config
    steps = parts.begin(run, folder, is_resumed=is_resumed)
    n_saved = len(steps)

    def save() -> None:
        nonlocal n_saved
        if folder is not None and n_saved < len(steps):
            _refuse_infinite_weights(run, parts, len(steps), told=_last_good(folder, n_saved))
            parts.save(folder, run, steps=steps)
            n_saved = len(steps)

    if folder is not None and len(steps) < config.n_steps:
        _refuse_what_cannot_be_saved(run, parts, folder, n_taken=len(steps))
    def take() -> Step:
        return _step(run, parts, len(steps), told=_last_good(folder, n_saved))

    take_steps(steps, take=take, save=save, n_steps=config.n_steps,
               checkpoint_every=config.checkpoint_every, on_step=on_step,
               is_stopping=parts.is_stopping)
    return History(steps=tuple(steps), is_complete=len(steps) == config.n_steps)


def take_steps(
    steps: list[Any], *, take: Callable[[], Any], save: Callable[[], None], n_steps: int,
    checkpoint_every: int, on_step: Callable[[Any], object] | None,
    is_stopping: Callable[[bool], bool] = its_own_word,
) -> None:
    """Appends to `steps` what `take()` returns, until there are `n_steps` or the run is stopped.

    `save()` is called when it is due and at the end, also if `on_step` raises. Ctrl-C stops after
    the step that is being taken; `is_stopping`: as in `TrainParts`.
    """
    with interrupts_noted() as is_interrupted:
        while len(steps) < n_steps and not is_stopping(is_interrupted()):
            steps.append(take())
            if on_step is not None:
                try:
                    on_step(steps[-1])
                except KeyboardInterrupt:
                    break
                except BaseException:
                    save()
                    raise
            if len(steps) % checkpoint_every == 0:
                save()
        save()


def _refuse_what_cannot_be_saved(
    run: resume.OngoingRun, parts: TrainParts, folder: Path, *, n_taken: int
) -> None:
    """Raises ValueError before the first step if the first save would fail."""
    if parts.save is not resume.save:
        return
    native.refuse_what_cannot_be_saved(run.model, run.data.tokenizer)
    n_bytes = (sum(p.nbytes for p in run.model.parameters())
               + sum(tensor.nbytes for tensor in run.optimizer.state_dict().values()))
    is_one = n_taken > 0 or run.config.checkpoint_every >= run.config.n_steps
    refuse_full_disk(folder, n_bytes=n_bytes, n_copies=1 if is_one else 2)


def _step(run: resume.OngoingRun, parts: TrainParts, number: int, *, told: str) -> Step:
    """Makes one update and returns its record. `told`: a sentence for the message of Diverged."""
    model, config = run.model, run.config
    began = time.perf_counter()
    lr = parts.schedule(number, n_steps=config.n_steps, peak=config.peak_lr,
                        n_warmup=config.n_warmup, final_ratio=config.final_lr_ratio)
    batch = run.data.batch(number, batch_size=config.batch_size, seq_len=config.seq_len,
                           seed=config.seed)
    run.optimizer.zero_grad()
    partial = _backward(model, parts.share(batch), parts, n_targets=batch.n_targets,
                        micro_batch_size=config.micro_batch_size, is_bf16=config.is_bf16)
    loss = parts.reduce(model, partial).item()
    grad_norm = float(parts.clip(model.parameters(), max_norm=config.max_grad_norm))
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        raise Diverged(f"the loss is {loss} and the gradient's length {grad_norm} at step {number},"
                       f" where the learning rate is {lr:.3g}. {told} "
                       f"Lower peak_lr={config.peak_lr}, or lengthen the warm-up")
    run.optimizer.step(lr=lr)
    run.optimizer.zero_grad()
    time_s = time.perf_counter() - began
    is_due = number + 1 == config.n_steps or (number + 1) % config.validate_every == 0
    evaluation = None
    if run.validation is not None and is_due:
        evaluation = parts.evaluate(model, run.validation, seq_len=config.seq_len,
                                    batch_size=config.micro_batch_size or config.batch_size,
                                    is_bf16=config.is_bf16)
    return Step(step=number, loss=loss, lr=lr, grad_norm=grad_norm, n_tokens=batch.ids.numel(),
                time_s=time_s, validation=evaluation)


def gradients(
    model: Llama, batch: Batch, *, micro_batch_size: int | None = None, is_bf16: bool = False
) -> float:
    """Adds the gradients of the batch's loss to the parameters' gradients, and returns the loss.

    The loss is in nats per token: the sum over all targets divided by their number in the whole
    batch. The mean of the micro-batches' means would be another number: it gives a target more
    weight if its micro-batch has fewer targets.
    """
    return _backward(model, batch, TrainParts(), n_targets=batch.n_targets,
                     micro_batch_size=micro_batch_size, is_bf16=is_bf16).item()


def _backward(
    model: Llama, batch: StepBatch, parts: TrainParts, *, n_targets: int,
    micro_batch_size: int | None, is_bf16: bool,
) -> Tensor:
    return parts.accumulate(model, batch.split(micro_batch_size or len(batch.ids)), parts,
                            n_targets=n_targets, is_bf16=is_bf16)


def bf16_pays_off(device: torch.device | str) -> bool:
    """Returns whether a bfloat16 matrix product takes less than 2/3 of the fp32 time here.

    The measurement takes milliseconds. The answer is yes on GPUs, and on CPUs with instructions for
    it (AMX, or bf16 vector instructions). Other CPUs emulate bfloat16.
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


def _refuse_infinite_weights(
    run: resume.OngoingRun, parts: TrainParts, n_taken: int, *, told: str
) -> None:
    """Raises Diverged if the last update made a weight infinite or not a number.

    The loss would show it only at the next step, after the broken weights were saved.
    """
    if bad := [name for name, p in parts.weights(run.model) if not torch.isfinite(p).all()]:
        raise Diverged(f"the update of step {n_taken - 1} made {', '.join(bad[:3])} infinite or "
                       f"not a number, so this state is not saved. {told} "
                       f"Lower peak_lr={run.config.peak_lr}")


def _last_good(folder: str | Path | None, n_saved: int) -> str:
    if folder is None or n_saved == 0:
        return "No checkpoint was saved before."
    return f"The last good checkpoint, after {n_saved} steps, is in {folder}."


@contextlib.contextmanager
def interrupts_noted() -> Iterator[Callable[[], bool]]:
    """Only notes the first Ctrl-C, so that it never stops an update halfway.

    The second Ctrl-C acts as usual. Yields a function that returns whether there was a first one.
    """
    noted = threading.Event()
    # Only the main thread receives interrupts.
    if threading.current_thread() is not threading.main_thread():
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
