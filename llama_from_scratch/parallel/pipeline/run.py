"""Executes a schedule on the ranks of a pipeline: any schedule, because it only reads the list.

A pass needs at most one tensor from another rank, and at most one other rank needs its result:

    F   receives the stream of the piece before      sends the stream to the piece after
    B   receives the stream's gradient from after    sends the gradient to the piece before
    W   neither

`mail` sends without waiting and receives ahead, so the passes of a schedule that `validate` accepts
can never wait for each other in a circle.

What a rank keeps of a micro-batch between F and B is what backward needs. The stream itself is
given back once it is sent, because backward only needs its place in the graph. With `recomputes`, a
rank keeps only what it received, and B computes the piece once more.

Notebook 44. Sources: Huang et al., GPipe, arXiv:1811.06965; Llama 3, arXiv:2407.21783, section
3.3.2 (asynchronous sending, and giving memory back early).
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.mesh import Axes
from llama_from_scratch.parallel.pipeline.deferred import Product, WeightGradients, deliver
from llama_from_scratch.parallel.pipeline.mail import GRADIENT, STREAM, Mail, channels
from llama_from_scratch.parallel.pipeline.plan import PipelinePlan
from llama_from_scratch.parallel.pipeline.schedule import BACKWARD, FORWARD, WEIGHTS, Op, Schedule
from llama_from_scratch.parallel.pipeline.stage import ModelPiece, cut
from llama_from_scratch.train.data import Batch
from llama_from_scratch.train.protocols import Loss


def piped(
    model: Llama, axes: Axes, plan: PipelinePlan, *, param_dtype: torch.dtype | None = None
) -> "PipelineRank":
    """Removes from `model`, in place, the layers of other ranks along `pp`; returns the pipeline.

    A collective of all ranks. `param_dtype`: in which the model computes, by default its own.
    Raises ValueError for too few layers, and for a model that sees.
    """
    own = cut(model, axes.pp, n_chunks=plan.n_chunks)
    return PipelineRank(model, own, axes.pp, plan=plan,
                        channels=channels(axes, n_chunks=plan.n_chunks),
                        stream_dtype=model.dtype if param_dtype is None else param_dtype)


class StreamOnly:
    """What a loss sees as the model on the last rank: the stream has come through all layers."""

    def __init__(self, model: Llama, x: Float[Tensor, "B T D"]) -> None:
        self._model, self._x = model, x
        self.config, self.output, self.device = model.config, model.output, model.device

    def __call__(self, ids: Tensor, **_: object) -> Float[Tensor, "B T V"]:
        return self._model.head(self._x)

    def hidden(self, ids: Tensor, **_: object) -> Float[Tensor, "B T D"]:
        return self._model.norm(self._x)


class _Kept:
    """What a rank keeps of a micro-batch in a piece, from its forward pass to its backward pass."""

    def __init__(self, received: Tensor | None) -> None:
        self.received = received
        self.end: GradientEdge | None = None


class PipelineRank:
    """This rank's part of a pipeline. `pieces`: its chunks, in their order.

    `channels`: see `channels`. `stream_dtype`: of what the ranks send. `most_in_flight`: after a
    step, the largest number of passes that were forward but not yet backward, at one time.
    """

    def __init__(
        self, model: Llama, pieces: Sequence[ModelPiece], group: RankGroup, *, plan: PipelinePlan,
        channels: Mapping[tuple[str, bool], RankGroup], stream_dtype: torch.dtype,
    ) -> None:
        self.model, self.pieces, self.group, self.plan = model, tuple(pieces), group, plan
        self._channels, self._dtype = channels, stream_dtype
        self._put_off: WeightGradients | None = None
        self.most_in_flight = 0

    def split_backward(self) -> None:
        """Divides backward of the model's matrix products, for a schedule with W passes.

        After tensor parallelism, which exchanges some of these layers.
        """
        if self.plan.splits_backward:
            self._put_off = WeightGradients()
            self._put_off.split(self.model)

    def step(
        self, micro_batches: Sequence[Batch], *, loss: Loss, n_targets: int, is_bf16: bool = False
    ) -> Float[Tensor, ""]:
        """Runs the schedule; the gradients of the weights are added up, and not yet over ranks.

        Returns the sum of the losses, each divided by `n_targets`, on the last rank; 0 on others.
        Raises ValueError for a number of micro-batches that the plan has no schedule for.
        """
        schedule = self.plan.on(self.group.size, n_micro_batches=len(micro_batches))
        batches = [micro.to(self.model.device) for micro in micro_batches]
        run = _Step(self, batches, schedule, loss=loss, n_targets=n_targets, is_bf16=is_bf16)
        with run.mail.closed_at_end():
            for op in schedule.ops[self.group.rank]:
                with self.group.log.span(str(op)):
                    run.do(op)
        self.most_in_flight = run.most_in_flight
        return run.total

    @torch.no_grad()
    def loss(self, batch: Batch, *, loss: Loss, is_bf16: bool = False) -> Float[Tensor, ""]:
        """Returns the loss of a batch, on all ranks, without gradients."""
        schedule = _forward_only(self.group.size, self.plan.n_chunks)
        run = _Step(self, [batch.to(self.model.device)], schedule, loss=loss, n_targets=1,
                    is_bf16=is_bf16)
        with run.mail.closed_at_end():
            for op in schedule.ops[self.group.rank]:
                run.do(op)
        return self.group.broadcast(run.total, source=self.group.size - 1, note="loss")


def _forward_only(n_ranks: int, n_chunks: int) -> Schedule:
    """Returns the schedule in which one micro-batch goes forward through all chunks."""
    ops = tuple(Op(kind=FORWARD, micro_batch=0, chunk=c) for c in range(n_chunks))
    return Schedule(name="forward", n_ranks=n_ranks, n_chunks=n_chunks, n_micro_batches=1,
                    ops=(ops,) * n_ranks)


class _Step:
    """One run of a schedule on one rank."""

    def __init__(
        self, pipeline: PipelineRank, batches: Sequence[Batch], schedule: Schedule, *, loss: Loss,
        n_targets: int, is_bf16: bool,
    ) -> None:
        self._of, self._batches, self._loss = pipeline, batches, loss
        self._n_targets, self._is_bf16 = n_targets, is_bf16
        self._schedule = schedule
        self._kept: dict[tuple[int, int], _Kept] = {}
        self._later: dict[tuple[int, int], list[Product]] = {}
        self.most_in_flight = 0
        model = pipeline.model
        self.total = torch.zeros((), dtype=torch.promote_types(model.dtype, torch.float32),
                                 device=model.device)
        self.mail = Mail(self._schedule, pipeline.group, pipeline._channels, self._new_tensor)

    def do(self, op: Op) -> None:
        """Runs one pass."""
        piece = self._of.pieces[op.chunk]
        {FORWARD: self._forward, BACKWARD: self._backward, WEIGHTS: self._weights}[op.kind](
            op, piece)

    def _new_tensor(self, micro_batch: int) -> Tensor:
        B, T = self._batches[micro_batch].ids.shape
        return torch.empty(B, T, self._of.model.config.dim, dtype=self._of._dtype,
                           device=self._of.model.device)

    def _forward(self, op: Op, piece: ModelPiece) -> None:
        received = None if piece.is_first else self.mail.receive(op, STREAM)
        kept = _Kept(received)
        recomputes = self._of.plan.recomputes and torch.is_grad_enabled()
        with torch.no_grad() if recomputes else contextlib.nullcontext():
            y = self._through(op.micro_batch, piece, kept)
        if torch.is_grad_enabled():
            self._kept[op.micro_batch, op.chunk] = kept
            self.most_in_flight = max(self.most_in_flight, len(self._kept))
            if not recomputes:
                kept.end = get_gradient_edge(y)
        if piece.is_last:
            self.total = self.total + y.detach()
        else:
            self.mail.send(op, y.detach())

    def _through(self, micro_batch: int, piece: ModelPiece, kept: _Kept) -> Tensor:
        """Returns the stream behind a piece, or the loss behind the last one."""
        model, batch = self._of.model, self._batches[micro_batch]
        if kept.received is not None and torch.is_grad_enabled():
            kept.received.requires_grad_(True)
        with torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=self._is_bf16):
            x = piece.stream(model, batch.ids if piece.is_first else kept.received,
                             positions=batch.positions, documents=batch.documents)
        if not piece.is_last:
            return x
        return self._loss(StreamOnly(model, x), batch, is_bf16=self._is_bf16) / self._n_targets

    def _backward(self, op: Op, piece: ModelPiece) -> None:
        kept = self._kept.pop((op.micro_batch, op.chunk))
        gradient = None if piece.is_last else self.mail.receive(op, GRADIENT)
        if kept.end is None:
            kept.end = get_gradient_edge(self._through(op.micro_batch, piece, kept))
        with self._weights_apart(op):
            torch.autograd.backward((kept.end,), (gradient,))
        if not piece.is_first:
            self.mail.send(op, kept.received.grad)

    @contextlib.contextmanager
    def _weights_apart(self, op: Op) -> Iterator[None]:
        if not self._schedule.splits_backward:
            yield
            return
        with self._of._put_off.collecting() as later:
            yield
        self._later[op.micro_batch, op.chunk] = later

    def _weights(self, op: Op, piece: ModelPiece) -> None:
        deliver(self._later.pop((op.micro_batch, op.chunk)))
