"""The time of a whole training step at the shape of Llama 3.2 1B, with kernels and without.

With kernels: the fused model, the loss without logits, and `FusedAdamW`. Without: the plain model,
whose attention is PyTorch's `scaled_dot_product_attention`, `F.cross_entropy`, and PyTorch's
`AdamW(fused=True)`. Both do the same: forward, backward, clipping, the update. They are timed once
with weights in fp32 and products in bf16 (autocast), and once with everything in bf16, where only
`FusedAdamW` keeps weights in fp32 in addition.

The plain model in fp32 has the exact gradients. The gradients with kernels must be as near to them
as the timed plain model's gradients are.

Notebook 36.
"""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from llama_from_scratch import family
from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.kernels.adamw import FusedAdamW
from llama_from_scratch.kernels.cross_entropy import linear_cross_entropy
from llama_from_scratch.kernels.fuse import fuse
from llama_from_scratch.kernels.trial import bench, timing
from llama_from_scratch.kernels.trial.bench import BenchRow
from llama_from_scratch.kernels.trial.parts import Finding, Say, TrialStep
from llama_from_scratch.kernels.trial.timing import Floors
from llama_from_scratch.kernels.trial.whole_decoding import FACTOR, SLACK, random_model
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train.optimizer import decay_groups

SHAPE = "llama-3.2-1b"
N_ROWS, SEQ_LEN = 4, 2048
N_REPEATS = 10
LR, MAX_NORM, WEIGHT_DECAY = 1e-4, 1.0, 0.1
# The weights' dtype, and whether products run in bf16 under autocast.
PRECISIONS = {"weights in fp32, products in bf16": (torch.float32, True),
              "weights in bf16": (torch.bfloat16, False)}

Loss = Callable[[Llama, Tensor, Tensor], Tensor]   # of a model, ids and targets


def plain_loss(model: Llama, ids: Tensor, targets: Tensor) -> Tensor:
    """Returns the mean cross-entropy from all logits."""
    return F.cross_entropy(model(ids).flatten(0, 1), targets.flatten())


def fused_loss(model: Llama, ids: Tensor, targets: Tensor, *, emulate: bool) -> Tensor:
    """Returns the mean cross-entropy without the logits of all tokens in memory."""
    x = model.hidden(ids).flatten(0, 1)
    return linear_cross_entropy(x, model.output.weight, targets.flatten(), emulate=emulate)


def gradients(
    model: Llama, loss: Loss, ids: Tensor, targets: Tensor, *, is_autocast: bool
) -> list[Tensor]:
    """Returns the gradient of each parameter."""
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=is_autocast):
        value = loss(model, ids, targets)
    return list(torch.autograd.grad(value, list(model.parameters())))


def distance(found: list[Tensor], exact: list[Tensor]) -> float:
    """Returns how far gradients are from the exact ones, all as one vector, relative to these."""
    off = sum(float((x.float() - e).square().sum()) for x, e in zip(found, exact, strict=True))
    return (off / sum(float(e.square().sum()) for e in exact)) ** 0.5


def plain_step(model: Llama, ids: Tensor, targets: Tensor, *, is_autocast: bool) -> Callable:
    """Returns a function that makes a step with PyTorch's own functions."""
    params = [{"params": list(group.params.values()), "weight_decay": group.weight_decay}
              for group in decay_groups(model, weight_decay=WEIGHT_DECAY)]
    optimizer = torch.optim.AdamW(params, lr=LR, fused=True)

    def step() -> None:
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=is_autocast):
            loss = plain_loss(model, ids, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        optimizer.zero_grad()

    return step


def fused_step(
    model: Llama, ids: Tensor, targets: Tensor, *, is_autocast: bool, emulate: bool
) -> Callable:
    """Returns a function that makes the same step with the kernels of a fused model."""
    optimizer = FusedAdamW(decay_groups(model, weight_decay=WEIGHT_DECAY), emulate=emulate)

    def step() -> None:
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=is_autocast):
            loss = fused_loss(model, ids, targets, emulate=emulate)
        loss.backward()
        optimizer.step(lr=LR, max_norm=MAX_NORM)
        optimizer.zero_grad()

    return step


def training_row(
    config: LlamaConfig, precision: str, *, n_rows: int, seq_len: int, floors: Floors,
    device: torch.device, say: Say, is_compiled: bool = False,
) -> BenchRow:
    """Returns the row of a step at one precision, with kernels and without.

    `is_compiled`: whether the model without kernels is compiled, which takes a minute or two.
    """
    dtype, is_autocast = PRECISIONS[precision]
    emulate = device.type == "cpu"
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(config.vocab_size, (n_rows, seq_len + 1), generator=generator).to(device)
    ids, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    model = random_model(config, dtype=dtype, device=device).requires_grad_()
    fused = copy.deepcopy(model)
    fuse(fused, emulate=emulate)

    # Of one row, because PyTorch stores all scores of a model in fp32.
    batch = ids[:1], targets[:1]
    exact = gradients(copy.deepcopy(model).float(), plain_loss, *batch, is_autocast=False)
    bench.free(device)
    plain_off = distance(gradients(model, plain_loss, *batch, is_autocast=is_autocast), exact)
    off = distance(gradients(fused, partial(fused_loss, emulate=emulate), *batch,
                             is_autocast=is_autocast), exact)
    del exact
    bench.free(device)

    label = f"training step, {precision}"
    say(f"{label}: fused")
    time = timing.time_stream(
        lambda: [fused_step(fused, ids, targets, is_autocast=is_autocast, emulate=emulate)],
        n_repeats=N_REPEATS)
    del fused
    bench.free(device)
    name = f"{'torch.compile' if is_compiled else 'eager'}, AdamW(fused=True)"
    say(f"{label}: {name}")
    rival = bench.timed(
        name, lambda: [plain_step(torch.compile(model) if is_compiled else model, ids, targets,
                                  is_autocast=is_autocast)], say,
        ways=(partial(timing.time_stream, n_repeats=N_REPEATS),))
    n_tokens = n_rows * seq_len
    # A token sees half of the others on average.
    n_operations = 3.0 * n_tokens * config.flops_per_token(context=seq_len // 2)
    return BenchRow(
        kernel=label, size=(n_rows, seq_len), dtype=str(dtype).removeprefix("torch."), n_bytes=0,
        n_operations=n_operations, time=time, rivals=(rival,), floors=floors,
        error_ratio=off / plain_off, is_right=off <= FACTOR * plain_off + SLACK)


def steps(device: torch.device, *, shape: str = SHAPE) -> list[TrialStep]:
    """Returns the steps of the part `training`: the floors, each precision, and then compiled."""
    config = family.config(shape)
    floors, first = bench.floors_step(device)

    def run(precision: str, is_compiled: bool, say: Say) -> Finding:
        row = training_row(config, precision, n_rows=N_ROWS, seq_len=SEQ_LEN, floors=floors(),
                           device=device, say=say, is_compiled=is_compiled)
        found = bench.found([row], say)
        per_s = N_ROWS * SEQ_LEN / row.time.median * 1e6
        say(f"{shape}, {precision}: {per_s:.0f} tokens/s")
        return Finding(wrong=found.wrong, data=found.data | {"tokens_per_s": per_s})

    return [first, *(TrialStep(name=name, run=partial(run, name, False)) for name in PRECISIONS),
            *(TrialStep(name=f"{name}, torch.compile", run=partial(run, name, True))
              for name in PRECISIONS)]
