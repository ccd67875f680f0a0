"""Training with kernels: the parts of a step that replace the plain loss and the plain optimizer.

`fuse_training` puts kernels into a model and returns these parts. The run stays the same run: its
weights, its batches, its settings, and the state of its optimizer, which either optimizer can load.
So a run that was begun with plain parts can be resumed with kernels, and the other way around.

Notebooks 34 and 36.
"""

import functools

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llama_from_scratch.kernels.adamw import FusedAdamW
from llama_from_scratch.kernels.cross_entropy import linear_cross_entropy
from llama_from_scratch.kernels.fuse import OLDEST, Report, fuse
from llama_from_scratch.kernels.machinery import nvrtc
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train.data import IGNORE, Batch
from llama_from_scratch.train.loss import evaluate
from llama_from_scratch.train.optimizer import Group
from llama_from_scratch.train.parts import TrainParts
from llama_from_scratch.train.records import TrainConfig


def fused_sum_of_nats(
    model: Llama, batch: Batch, *, is_bf16: bool = False, emulate: bool = False
) -> Float[Tensor, ""]:
    """Returns what `train.loss.sum_of_nats` does, without the logits of all tokens in memory.

    Raises ValueError for a model whose output layer is not a plain linear layer without bias.
    """
    if type(model.output) is not nn.Linear or model.output.bias is not None:
        raise ValueError("the fused loss multiplies by the weight of the output layer itself, so "
                         "that must be an nn.Linear without bias; this model's is "
                         f"{model.output}. Train it with train.loss.sum_of_nats")
    with torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=is_bf16):
        x = batch.hidden(model).flatten(0, 1)
        return linear_cross_entropy(x, model.output.weight, batch.targets.flatten(),
                                    reduction="sum", ignore_index=IGNORE, emulate=emulate)


def fused_parts(*, emulate: bool = False) -> TrainParts:
    """Returns the parts of a step with the fused loss, also for validation, and `FusedAdamW`."""
    loss = functools.partial(fused_sum_of_nats, emulate=emulate)
    return TrainParts(loss=loss, holds_logits=False,
                      evaluate=functools.partial(evaluate, loss=loss),
                      make_optimizer=functools.partial(_fused_adamw, emulate=emulate))


def fuse_training(model: Llama, *, emulate: bool = False) -> tuple[Report, TrainParts]:
    """Puts kernels into the model, in place; returns what changed, and the parts for `train`.

    Raises ValueError as `fuse` does.
    """
    return fuse(model, emulate=emulate), fused_parts(emulate=emulate)


def reason_against(device: torch.device | str) -> str:
    """Returns why a training on this device cannot use kernels, or "" if it can."""
    device = torch.device(device)
    if device.type != "cuda":
        return f"kernels run on CUDA devices, and the device is {device.type}"
    if (capability := torch.cuda.get_device_capability(device)) < OLDEST:
        return (f"kernels need compute capability {OLDEST[0]}.{OLDEST[1]} or newer, and "
                f"{torch.cuda.get_device_name(device)} has {capability[0]}.{capability[1]}")
    try:
        nvrtc.compiler().architecture(capability)
    except (RuntimeError, ValueError) as error:
        return str(error)
    return ""


def _fused_adamw(groups: list[Group], config: TrainConfig, *, emulate: bool) -> FusedAdamW:
    return FusedAdamW(groups, beta1=config.beta1, beta2=config.beta2, eps=config.adam_eps,
                      emulate=emulate)
