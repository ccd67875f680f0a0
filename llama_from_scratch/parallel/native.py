"""The torch-native twin: the same model on the same mesh through DDP, `fully_shard` and DTensor.

This is what to train with when one machine is outgrown: PyTorch's own code, on any number of nodes.
A `NativeModel` does what a `ShardedModel` does, so the training loop, the order of the data and the
files are the same. Each weight is a DTensor, a tensor that knows which slice of the whole it holds.
Optimizers see only the local slices, as plain tensors.

    stage 0    DistributedDataParallel
    stage 2    fully_shard, which keeps the gathered weights from forward to backward
    stage 3    fully_shard
    tp         ColwiseParallel, RowwiseParallel, SequenceParallel and loss_parallel
    pp         torch.distributed.pipelining

Notebooks 41 to 44.
"""

import contextlib
import functools
import inspect
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.distributed.tensor.parallel import loss_parallel, parallelize_module
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from llama_from_scratch.checkpoint.sharded.region import Region
from llama_from_scratch.model.mask import PADDING
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.parallel.context import ContextParallel
from llama_from_scratch.parallel.mesh import Axes, Mesh
from llama_from_scratch.parallel.native_pipeline import NativePipeline, pieces_on
from llama_from_scratch.parallel.native_plan import plan, refuse_what_torch_cannot_do
from llama_from_scratch.parallel.pipeline.plan import PipelinePlan
from llama_from_scratch.parallel.pipeline.stage import (
    Absent,
    names_on_both_ends,
    whole_of_stages,
)
from llama_from_scratch.parallel.placement import each_once
from llama_from_scratch.parallel.shard import refuse_tokens_for_one
from llama_from_scratch.train.data import IGNORE, Batch
from llama_from_scratch.train.loss import sum_of_nats
from llama_from_scratch.train.parts import TrainParts, one_after_another
from llama_from_scratch.train.protocols import Loss

_WITHOUT_BUFFERS = {"forward_sync_buffers" if "forward_sync_buffers" in inspect.signature(
    DistributedDataParallel).parameters else "broadcast_buffers": False}
"""RoPE's frequencies are equal everywhere, so they need not be sent. The name is new in 2.13."""


def shard_natively(
    model: Llama, axes: Axes, *, stage: int = 0, is_sequence_parallel: bool = False,
    param_dtype: torch.dtype | None = None, context: str = "gather",
    pipeline: PipelinePlan | None = None,
    weights: Iterable[tuple[str, Tensor]] | None = None,
) -> "NativeModel":
    """Changes `model` in place, so that it computes together with the other ranks.

    Arguments as in `shard`. Along `cp` it is this library's own code, because PyTorch's context
    parallelism has no attention for CPUs. Raises ValueError for what PyTorch's parts cannot do:
    stage 1, stage 0 together with tensor parallelism and data parallelism, more ranks along `tp`
    than key/value heads, biases in attention or feed-forward, experts or a model that sees along
    `tp`, experts along `ep`, and sequence parallelism or recomputation in a pipeline.
    """
    refuse_tokens_for_one(axes, is_sequence_parallel=is_sequence_parallel)
    line = pipeline if pipeline is not None or axes.mesh.pp == 1 else PipelinePlan()
    refuse_what_torch_cannot_do(model, axes, stage=stage, param_dtype=param_dtype, pipeline=line,
                                is_sequence_parallel=is_sequence_parallel)
    mesh, device, names = axes.mesh, axes.world.device, list(dict(model.named_parameters()))
    pieces = [] if line is None else pieces_on(model, axes, line)
    made = init_device_mesh(device.type, (mesh.replicate, mesh.dp, mesh.pp, mesh.cp, mesh.tp),
                            mesh_dim_names=("replicate", "dp", "pp", "cp", "tp"))
    if mesh.tp > 1:
        styles = plan(model.config, is_sequence_parallel=is_sequence_parallel)
        present = {name for name, module in model.named_modules()
                   if any(True for _ in module.parameters())}
        parallelize_module(model, made["tp"], {name: style for name, style in styles.items()
                                               if name in present})
        _tie(model)
    if mesh.cp > 1:
        ContextParallel(model, axes.cp, style=context)
    if stage:
        policy = MixedPrecisionPolicy(
            param_dtype=param_dtype, reduce_dtype=None if param_dtype is None else torch.float32)
        blocks = [block for block in model.layers if not isinstance(block, Absent)]
        for block in (*blocks, *(pieces or [model])):
            fully_shard(block, mesh=_data_mesh(made, mesh), reshard_after_forward=stage == 3,
                        mp_policy=policy)
        if pieces:
            _tie(model)
    if weights is not None:
        _give_memory(model, device)
    called = pieces or [model]
    if stage == 0 and axes.gradients.size > 1:
        called = [DistributedDataParallel(each, process_group=axes.gradients.process_group,
                                          **_WITHOUT_BUFFERS) for each in called]
    native = NativeModel(model, axes, names=names, called=called, is_sharded=stage > 0,
                         divides_tokens=is_sequence_parallel and mesh.tp > 1,
                         pipeline=None if line is None else NativePipeline(
                             model, axes, line, pieces=[each.piece for each in pieces],
                             called=called, gradient_scale=axes.gradients.size))
    if weights is not None:
        native.fill(weights)
    return native


def _tie(model: Llama) -> None:
    """Makes a tied head the embedding's matrix again: each module has got a DTensor of its own."""
    if not model.config.is_tied or isinstance(model.output, Absent):
        return
    model.tok_embeddings.weight = model.output.weight


def _data_mesh(made: DeviceMesh, mesh: Mesh) -> DeviceMesh:
    """Returns the ranks among which weights are divided, and outside of them, the replicas."""
    shards = made["dp"] if mesh.cp == 1 else made["dp", "cp"]._flatten("shards")
    return shards if mesh.replicate == 1 else made["replicate", shards.mesh_dim_names[0]]


class NativeModel:
    """A model on a mesh through PyTorch's own parts, seen from one rank: see `ShardedModel`."""

    def __init__(
        self, model: Llama, axes: Axes, *, names: Collection[str], called: Sequence[nn.Module],
        is_sharded: bool, divides_tokens: bool, pipeline: NativePipeline | None,
    ) -> None:
        self.model, self.axes, self._divides_tokens = model, axes, divides_tokens
        self._is_sharded, self._called, self.pipeline = is_sharded, called[0], pipeline
        self.names = tuple(names)
        self._on_both_ends = names_on_both_ends(model.config, axes.ends)
        self._owners = dict(model.named_parameters())
        self.weights = {name: nn.Parameter(local, requires_grad=p.requires_grad)
                        for name, p in self._owners.items() if (local := _local(p)).numel()}
        self.params = {name: p for name, p in self.weights.items() if p.requires_grad}

    def loss(self, model: Llama, batch: Batch, *, is_bf16: bool) -> Float[Tensor, ""]:
        """Returns the sum of nats over a batch's targets; in a pipeline, only to evaluate."""
        if self.pipeline is not None:
            with self._local_logits(is_for_backward=False):
                return self.pipeline.loss(batch)
        return self.loss_by(sum_of_nats)(model, batch, is_bf16=is_bf16)

    def loss_by(self, loss: Loss) -> Loss:
        """Returns a loss of the reader, for this engine. Along `tp` its logits are a DTensor.

        DDP and `fully_shard` average gradients over the ranks. Here they are added up: the loss
        keeps its value, and its gradient is multiplied by the number of ranks.
        Raises ValueError in a pipeline, where PyTorch computes the loss.
        """
        if self.pipeline is not None:
            raise ValueError("the native engine's pipeline has its own loss, the sum of nats; got "
                             "another one. Use the engine `own`, or pp=1")

        def of_all_ranks(_, batch: Batch, *, is_bf16: bool) -> Float[Tensor, ""]:
            if self._divides_tokens:
                batch = _padded(batch, self.axes.tp.size)
            with self._local_logits(is_for_backward=False):
                total = loss(self._called, batch, is_bf16=is_bf16)
            total = total.full_tensor() if isinstance(total, DTensor) else total
            return total + (self.axes.gradients.size - 1) * (total - total.detach())

        return of_all_ranks

    @contextlib.contextmanager
    def micro_batch(self, *, is_last: bool) -> Iterator[None]:
        """A context around forward and backward of one micro-batch."""
        with contextlib.ExitStack() as contexts:
            contexts.enter_context(self._local_logits(is_for_backward=True))
            if self._is_sharded:
                self.model.set_requires_gradient_sync(is_last)
            elif self._called is not self.model and not is_last:
                contexts.enter_context(self._called.no_sync())
            yield

    def accumulate(
        self, model: Llama, micro_batches: Sequence[Batch], parts: TrainParts, *, n_targets: int,
        is_bf16: bool = False,
    ) -> Float[Tensor, ""]:
        """Adds up the gradients of all micro-batches: see `TrainParts.accumulate`."""
        if self.pipeline is not None:
            with (self._local_logits(is_for_backward=True),
                  torch.autocast(self.axes.world.device.type, torch.bfloat16, enabled=is_bf16)):
                return self.pipeline.step(micro_batches, n_targets=n_targets)
        return one_after_another(model, micro_batches, parts, n_targets=n_targets, is_bf16=is_bf16)

    def _local_logits(self, *, is_for_backward: bool) -> AbstractContextManager:
        """Returns the context in which PyTorch's cross-entropy takes slices of the vocabulary.

        Backward needs it as well, and it cannot be entered twice. So with gradients it is the
        context of the micro-batch, and without them that of the loss.
        """
        is_needed = self.axes.tp.size > 1 and is_for_backward == torch.is_grad_enabled()
        return loss_parallel() if is_needed else contextlib.nullcontext()

    def finish_gradients(self) -> None:
        """After the last backward: the gradients of `params` are complete."""
        for name, p in self.params.items():
            grad = self._owners[name].grad
            if isinstance(grad, DTensor):  # some arrive as parts of a sum, or whole
                grad = grad.redistribute(placements=self._owners[name].placements)
                self._owners[name].grad = grad
            p.grad = torch.zeros_like(p) if grad is None else _local(grad)
        for name in self._on_both_ends & self.params.keys():
            self.axes.ends.all_reduce(self.params[name].grad, note="tied gradient")

    def clip(self, max_norm: float) -> Float[Tensor, ""]:
        """Scales down gradients longer than `max_norm`, and returns their length before."""
        length = self.gradient_norm()
        if torch.isfinite(length) and length > max_norm:
            torch._foreach_mul_([p.grad for p in self.params.values()], (max_norm / length).item())
        return length

    def gradient_norm(self, norm_type: float = 2.0) -> Float[Tensor, ""]:
        """Returns the length of all gradients as one vector, by PyTorch's own function.

        That refuses DTensors of several meshes together, so each mesh has its own length first.
        """
        by_mesh: dict[DeviceMesh | None, list[Tensor]] = {}
        for name, p in self._owners.items():
            is_second = name in self._on_both_ends and self.axes.pp.rank > 0
            if p.grad is not None and not is_second:
                mesh = p.grad.device_mesh if isinstance(p.grad, DTensor) else None
                by_mesh.setdefault(mesh, []).append(p.grad)
        norms = [torch.nn.utils.get_total_norm(grads, norm_type) for grads in by_mesh.values()]
        norms = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
        norm = torch.linalg.vector_norm(torch.stack(norms), norm_type)
        if self.axes.pp.size == 1:
            return norm
        parts = self.axes.pp.all_gather(norm[None], note="gradient norm")
        return torch.linalg.vector_norm(parts, norm_type)

    def after_step(self) -> None:
        """After the optimizer: forgets the gradients. The weights are the model's own already."""
        for p in self._owners.values():
            p.grad = None

    @property
    def regions(self) -> dict[str, Region]:
        """Which elements of the whole tensors this rank's `weights` are, by name."""
        found = {}
        for name in self.weights:
            p = self._owners[name]
            found[name] = Region.whole(p.shape)
            if isinstance(p, DTensor):
                sizes, starts = compute_local_shape_and_global_offset(
                    p.shape, p.device_mesh, p.placements)
                found[name] = Region(shape=tuple(p.shape), starts=tuple(starts),
                                     sizes=tuple(sizes), first=0, n=math.prod(sizes))
        return found

    def after_fill(self) -> None:
        """After `weights` were changed in place. They are the model's own."""

    @torch.no_grad()
    def fill(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Copies whole weights in, by name. Raises ValueError for missing or unknown names."""
        for name, weight in each_once(weights, self.names):
            if name in self.weights:
                self.weights[name].copy_(self.piece(name, weight))

    def piece(self, name: str, whole: Tensor) -> Tensor:
        """Returns the slice of a whole tensor that `params[name]` stands for."""
        p = self._owners[name]
        if not isinstance(p, DTensor):
            return whole
        return distribute_tensor(whole.to(p.device), p.device_mesh, p.placements,
                                 src_data_rank=None).to_local()

    @torch.no_grad()
    def whole(self, pieces: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Yields whole tensors by name, from this rank's slices. All ranks call it."""
        yield from whole_of_stages(self.axes.pp, self._whole_of_stage(pieces),
                                   skips=self._on_both_ends)

    def _whole_of_stage(self, pieces: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        for name, p in self._owners.items():
            local = pieces[name] if name in pieces else _local(p).new_empty(_local(p).shape)
            if isinstance(p, DTensor):
                local = DTensor.from_local(local, p.device_mesh, p.placements, run_check=False,
                                           shape=p.shape, stride=p.stride()).full_tensor()
            yield name, local


def _local(x: Tensor) -> Tensor:
    """Returns this rank's slice of a DTensor, in the same memory; any other tensor as it is."""
    x = x.detach()
    return x.to_local() if isinstance(x, DTensor) else x


def _padded(batch: Batch, multiple: int) -> Batch:
    """Returns the batch with tokens at the end that no token sees, so that the ranks divide T."""
    pad = functools.partial(F.pad, pad=(0, -batch.ids.shape[1] % multiple))
    return Batch(ids=pad(batch.ids), targets=pad(batch.targets, value=IGNORE),
                 documents=pad(batch.documents, value=PADDING), positions=pad(batch.positions))


def _give_memory(model: Llama, device: torch.device) -> None:
    rope = model.rope
    model.to_empty(device=device)
    model.rope = type(rope)(model.config).to(device)
