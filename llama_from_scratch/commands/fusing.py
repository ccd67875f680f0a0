"""`--fused`: whether a training, or writing, uses kernels, and the line that says so."""

import argparse
import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from llama_from_scratch.commands import on_mesh

if TYPE_CHECKING:
    from llama_from_scratch.model.transformer import Llama
    from llama_from_scratch.train.parts import TrainParts


def add_arguments(parser: argparse.ArgumentParser, *, what: str) -> None:
    """Adds `--fused` and `--no-fused`. Given neither, the device decides.

    `what`: the parts that kernels replace, for --help.
    """
    parser.add_argument("--fused", action=argparse.BooleanOptionalAction, default=None,
                        help=f"use fused CUDA kernels for {what}, or only PyTorch's (default: "
                        "kernels on a CUDA device)")


def is_fused(wanted: bool | None, *, device: str, process: on_mesh.OneProcess) -> bool:
    """Returns whether this training uses kernels. `wanted`: the user's choice, None without one.

    Without a choice, a CUDA device uses them if it can; if it cannot, the reason is printed. Raises
    ValueError if kernels are wanted and cannot run.
    """
    if not _is_asked(wanted, device=device):
        return False
    from llama_from_scratch.kernels.training import reason_against

    reason = reason_against(device) if process.can_fuse else (
        "a mesh divides the model's matrices, so a training on a mesh uses parts of its own")
    return _accepts(wanted, reason, say=process.say)


def parts_with_kernels(model: "Llama", process: on_mesh.OneProcess) -> "TrainParts":
    """Puts kernels into the model, says how many parts they replace, and returns the step's parts.
    """
    from llama_from_scratch.kernels import training

    report, parts = training.fuse_training(model)
    process.say(f"fused kernels: {report.n_fused} of {len(report.changes)} parts of the model, the "
                "loss and AdamW (--no-fused trains without them)")
    return parts


def fuse_for_writing(model: "Llama", wanted: bool | None) -> None:
    """Puts kernels into a model that is to write, and says so on stderr.

    `wanted`: the user's choice, None without one. Without a choice, a model on a CUDA device gets
    them if it can; if it cannot, the reason is printed. Raises ValueError if kernels are wanted and
    cannot run.
    """
    if not _is_asked(wanted, device=model.device.type):
        return
    from llama_from_scratch import kernels
    from llama_from_scratch.kernels.training import reason_against

    say = functools.partial(print, file=sys.stderr)
    if not _accepts(wanted, reason_against(model.device), say=say):
        return
    report = kernels.fuse(model)
    say(f"fused kernels: {report.n_fused} of {len(report.changes)} parts of the model; steps are "
        "recorded and repeated (--no-fused writes without them)")


def _is_asked(wanted: bool | None, *, device: str) -> bool:
    return device.startswith("cuda") if wanted is None else wanted


def _accepts(wanted: bool | None, reason: str, *, say: Callable[[str], None]) -> bool:
    """Returns whether kernels can run. `reason`: why they cannot, or "".

    Without a choice of the user, `say` prints the reason. If kernels are wanted, it is an error.
    """
    if reason and wanted:
        raise ValueError(f"--fused needs a device that runs kernels: {reason}. Leave it out, or "
                         "give --no-fused")
    if reason:
        say(f"without fused kernels: {reason}")
    return not reason
