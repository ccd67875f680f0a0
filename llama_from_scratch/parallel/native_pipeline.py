"""The torch-native twin of a pipeline: `torch.distributed.pipelining` runs the same schedules.

PyTorch wants a module for each piece, finds out the shapes by sending them once, and divides the
batch into micro-batches itself. Its schedules are classes; ours are lists that it does not read.

    gpipe          ScheduleGPipe                 interleaved    ScheduleInterleaved1F1B
    1f1b           Schedule1F1B                  zero_bubble    ScheduleInterleavedZeroBubble

Notebook 44.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed import pipelining
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.parallel.mesh import Axes
from llama_from_scratch.parallel.pipeline.plan import PipelinePlan
from llama_from_scratch.parallel.pipeline.stage import ModelPiece, cut
from llama_from_scratch.train.data import IGNORE, Batch

_OF_ONE_PIECE = {"gpipe": pipelining.ScheduleGPipe, "1f1b": pipelining.Schedule1F1B}
_OF_SEVERAL = {"interleaved": pipelining.ScheduleInterleaved1F1B,
               "zero_bubble": pipelining.ScheduleInterleavedZeroBubble}


class PieceModule(nn.Module):
    """A piece of a model as a module of its own, which shares the model's parameters."""

    def __init__(self, model: Llama, piece: ModelPiece) -> None:
        super().__init__()
        self.piece, self._model = piece, (model,)  # in a tuple, so it is no child of this module
        self.layers = nn.ModuleList(model.layers[i] for i in piece.numbers)
        if piece.is_first:
            self.tok_embeddings = model.tok_embeddings
        if piece.is_last:
            self.norm, self.output = model.norm, model.output

    def forward(
        self, x: Tensor, *, positions: Int[Tensor, "B T"], documents: Int[Tensor, "B T"]
    ) -> Tensor:
        """Returns the stream; the first piece is given ids, and the last returns logits."""
        (model,) = self._model
        x = self.piece.stream(model, x, positions=positions, documents=documents)
        return model.head(x) if self.piece.is_last else x


def pieces_on(model: Llama, axes: Axes, plan: PipelinePlan) -> list[PieceModule]:
    """Removes from `model`, in place, what other ranks have; returns this rank's pieces."""
    return [PieceModule(model, piece) for piece in cut(model, axes.pp, n_chunks=plan.n_chunks)]


class NativePipeline:
    """This rank's part of a pipeline. `called`: the pieces, as DDP or `fully_shard` made them.

    `gradient_scale`: the loss of a step has its gradient multiplied by this.
    """

    def __init__(
        self, model: Llama, axes: Axes, plan: PipelinePlan, *, pieces: Sequence[ModelPiece],
        called: Sequence[nn.Module], gradient_scale: int,
    ) -> None:
        self._model, self._axes, self._plan = model, axes, plan
        self._pieces, self._called = pieces, called
        self._scale, self._n_targets = gradient_scale, 1
        self._made: dict[tuple, Any] = {}

    def step(self, micro_batches: Sequence[Batch], *, n_targets: int) -> Float[Tensor, ""]:
        """Forward and backward of all micro-batches; returns the sum of their losses, divided by
        `n_targets`, on the last rank, and 0 on others."""
        self._plan.on(self._axes.pp.size, n_micro_batches=len(micro_batches))  # refuses too few
        self._n_targets = n_targets
        return self._run("step", micro_batches) / self._scale

    @torch.no_grad()
    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Returns the sum of nats of a batch, on all ranks, without gradients."""
        total = self._run("eval", [batch])
        return self._axes.pp.broadcast(total, source=self._axes.pp.size - 1, note="loss")

    def _run(self, how: str, micro_batches: Sequence[Batch]) -> Float[Tensor, ""]:
        """Returns the sum of what the loss function of "step" or "eval" returned on this rank."""
        whole = [torch.cat(parts).to(self._model.device) for parts in zip(*(
            (b.ids, b.targets, b.positions, b.documents) for b in micro_batches), strict=True)]
        ids, targets, positions, documents = whole
        schedule = self._schedule(how, len(micro_batches), ids.shape)
        losses: list[Tensor] = []
        last = dict(target=targets, losses=losses) if self._pieces[-1].is_last else {}
        getattr(schedule, how)(*([ids] if self._pieces[0].is_first else []), positions=positions,
                               documents=documents, return_outputs=False, **last)
        zero = torch.zeros((), dtype=torch.promote_types(self._model.dtype, torch.float32),
                           device=self._model.device)
        return sum((_plain(nats).detach() for nats in losses), zero)

    def _schedule(self, how: str, n_micro_batches: int, shape: tuple[int, ...]) -> Any:
        """Returns PyTorch's schedule; it remembers shapes, so there is one for each."""
        key = how, n_micro_batches, tuple(shape)
        if key not in self._made:
            stages = [pipelining.PipelineStage(
                module, piece.number, piece.n_pieces, self._model.device,
                group=self._axes.pp.process_group)
                for module, piece in zip(self._called, self._pieces, strict=True)]
            options = dict(n_microbatches=n_micro_batches, scale_grads=False,
                           loss_fn=self._scaled if how == "step" else _nats)
            kind = self._plan.schedule
            if kind in _OF_ONE_PIECE:
                made = _OF_ONE_PIECE[kind](stages[0], **options)
            else:
                made = _OF_SEVERAL[kind](stages, **options)
            self._made[key] = made
        return self._made[key]

    def _scaled(self, logits: Tensor, targets: Tensor) -> Tensor:
        return _nats(logits, targets) * (self._scale / self._n_targets)


def _nats(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE,
                           reduction="sum")


def _plain(x: Tensor) -> Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x
