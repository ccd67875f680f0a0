"""The torch-native twin: the same model on the same mesh through DDP, `fully_shard` and DTensor.

This is what to train with when one machine is outgrown: PyTorch's own code, on any number of nodes.
A `NativeModel` does what a `ShardedModel` does, so the training loop, the order of the data and the
files are the same. Each weight is a DTensor, a tensor that knows which slice of the whole it holds.
Optimizers see only the local slices, as plain tensors.

    stage 0    DistributedDataParallel
    stage 2    fully_shard, which keeps the gathered weights from forward to backward
    stage 3    fully_shard
    tp         ColwiseParallel, RowwiseParallel, SequenceParallel and loss_parallel

Notebooks 41, 42 and 43.
"""

import contextlib
import functools
import inspect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    loss_parallel,
    parallelize_module,
)
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from llama_from_scratch.checkpoint.sharded.region import Region
from llama_from_scratch.config import Experts, LlamaConfig
from llama_from_scratch.model.mask import PADDING
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.parallel.mesh import Axes
from llama_from_scratch.parallel.placement import each_once
from llama_from_scratch.parallel.shard import refuse_tokens_for_one
from llama_from_scratch.train.data import IGNORE, Batch
from llama_from_scratch.train.loss import sum_of_nats
from llama_from_scratch.train.parts import TrainParts, one_after_another
from llama_from_scratch.train.protocols import Loss

STAGES = (0, 2, 3)
_WITHOUT_BUFFERS = {"forward_sync_buffers" if "forward_sync_buffers" in inspect.signature(
    DistributedDataParallel).parameters else "broadcast_buffers": False}
"""RoPE's frequencies are equal everywhere, so they need not be sent. The name is new in 2.13."""


def shard_natively(
    model: Llama, axes: Axes, *, stage: int = 0, is_sequence_parallel: bool = False,
    param_dtype: torch.dtype | None = None,
    weights: Iterable[tuple[str, Tensor]] | None = None,
) -> "NativeModel":
    """Changes `model` in place, so that it computes together with the other ranks.

    Arguments as in `shard`. Raises ValueError for what PyTorch's parts cannot do: stage 1, stage 0
    together with tensor parallelism and data parallelism, more ranks along `tp` than key/value
    heads, biases in attention or feed-forward, and experts or a model that sees along `tp`.
    """
    refuse_tokens_for_one(axes, is_sequence_parallel=is_sequence_parallel)
    _refuse_what_torch_cannot_do(model, axes, stage=stage, param_dtype=param_dtype)
    mesh, device = axes.mesh, axes.world.device
    made = init_device_mesh(device.type, (mesh.replicate, mesh.dp, mesh.tp),
                            mesh_dim_names=("replicate", "dp", "tp"))
    if mesh.tp > 1:
        parallelize_module(model, made["tp"], plan(
            model.config, is_sequence_parallel=is_sequence_parallel))
        if model.config.is_tied:  # each of the two modules has got a DTensor of its own
            model.output.weight = model.tok_embeddings.weight
    if stage:
        data_mesh = made["replicate", "dp"] if mesh.replicate > 1 else made["dp"]
        policy = MixedPrecisionPolicy(
            param_dtype=param_dtype, reduce_dtype=None if param_dtype is None else torch.float32)
        for block in (*model.layers, model):
            fully_shard(block, mesh=data_mesh, reshard_after_forward=stage == 3, mp_policy=policy)
    if weights is not None:
        _give_memory(model, device)
    native = NativeModel(model, axes, is_sharded=stage > 0,
                         divides_tokens=is_sequence_parallel and mesh.tp > 1)
    if weights is not None:
        native.fill(weights)
    return native


def plan(config: LlamaConfig, *, is_sequence_parallel: bool) -> dict[str, ParallelStyle]:
    """Returns the style of each module along `tp`, by name, in PyTorch's words.

    With sequence parallelism, blocks exchange slices of the tokens: Shard(1).
    """
    between = Shard(1) if is_sequence_parallel else Replicate()
    found: dict[str, ParallelStyle] = {
        "tok_embeddings": RowwiseParallel(input_layouts=Replicate(), output_layouts=Replicate()),
        "output": ColwiseParallel(input_layouts=between, output_layouts=Shard(-1),
                                  use_local_output=False)}
    for i in range(config.n_layers):
        attention, ffn = f"layers.{i}.attention", f"layers.{i}.feed_forward"
        found |= {f"{attention}.{name}": ColwiseParallel() for name in ("wq", "wk", "wv")}
        found |= {f"{ffn}.{name}": ColwiseParallel() for name in ("w_gate", "w_up")}
        found |= {f"{attention}.wo": RowwiseParallel(output_layouts=between),
                  f"{ffn}.w_down": RowwiseParallel(output_layouts=between),
                  # Once for all matrices that read it; otherwise each sends its own gradient.
                  attention: PrepareModuleInput(input_layouts=(between, None),
                                                desired_input_layouts=(Replicate(), None)),
                  ffn: PrepareModuleInput(input_layouts=between,
                                          desired_input_layouts=Replicate())}
        if is_sequence_parallel:
            found |= {f"layers.{i}.{norm}": SequenceParallel(use_local_output=True)
                      for norm in ("attention_norm", "ffn_norm")}
    if is_sequence_parallel:
        found |= {"norm": SequenceParallel(use_local_output=True),
                  "layers.0": PrepareModuleInput(
                      input_layouts=(Replicate(), None), desired_input_layouts=(between, None),
                      use_local_output=True)}
    return found


class NativeModel:
    """A model on a mesh through PyTorch's own parts, seen from one rank: see `ShardedModel`."""

    def __init__(
        self, model: Llama, axes: Axes, *, is_sharded: bool, divides_tokens: bool
    ) -> None:
        self.model, self.axes, self._divides_tokens = model, axes, divides_tokens
        self._is_sharded, self._called = is_sharded, model
        if not is_sharded and axes.data.size > 1:
            self._called = DistributedDataParallel(
                model, process_group=axes.data.process_group, **_WITHOUT_BUFFERS)
        self._owners = dict(model.named_parameters())
        self.weights = {name: nn.Parameter(local, requires_grad=p.requires_grad)
                        for name, p in self._owners.items() if (local := _local(p)).numel()}
        self.params = {name: p for name, p in self.weights.items() if p.requires_grad}

    def loss(self, model: Llama, batch: Batch, *, is_bf16: bool) -> Float[Tensor, ""]:
        """Returns the sum of nats over a batch's targets."""
        return self.loss_by(sum_of_nats)(model, batch, is_bf16=is_bf16)

    def loss_by(self, loss: Loss) -> Loss:
        """Returns a loss of the reader, for this engine. Along `tp` its logits are a DTensor.

        DDP and `fully_shard` average gradients over the ranks. Here they are added up: the loss
        keeps its value, and its gradient is multiplied by the number of ranks.
        """
        def of_all_ranks(_, batch: Batch, *, is_bf16: bool) -> Float[Tensor, ""]:
            if self._divides_tokens:
                batch = _padded(batch, self.axes.tp.size)
            with self._local_logits(is_for_backward=False):
                total = loss(self._called, batch, is_bf16=is_bf16)
            total = total.full_tensor() if isinstance(total, DTensor) else total
            return total + (self.axes.data.size - 1) * (total - total.detach())

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
            p.grad = torch.zeros_like(p) if grad is None else _local(grad)

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
        for p in self._owners.values():
            if p.grad is not None:
                mesh = p.grad.device_mesh if isinstance(p.grad, DTensor) else None
                by_mesh.setdefault(mesh, []).append(p.grad)
        norms = [torch.nn.utils.get_total_norm(grads, norm_type) for grads in by_mesh.values()]
        norms = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
        return torch.linalg.vector_norm(torch.stack(norms), norm_type)

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
        for name, weight in each_once(weights, self._owners):
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


def _refuse_what_torch_cannot_do(
    model: Llama, axes: Axes, *, stage: int, param_dtype: torch.dtype | None
) -> None:
    mesh, config = axes.mesh, model.config
    problems = []
    if stage not in STAGES:
        problems.append(f"its stages are 0 (DDP), 2 and 3 (fully_shard), not {stage!r}")
    if stage == 0 and mesh.tp > 1 and axes.data.size > 1:
        problems.append("DDP does not take the DTensors of tensor parallelism: choose stage 2")
    if stage == 0 and param_dtype is not None:
        problems.append("DDP has no param_dtype: choose stage 2")
    if mesh.tp > 1:
        if type(model) is not Llama:
            problems.append(f"its plan for tp is for a Llama, not for a {type(model).__name__}")
        if config.n_kv_heads % mesh.tp or config.n_heads % mesh.tp:
            problems.append(f"tp={mesh.tp} must divide the {config.n_heads} heads and "
                            f"{config.n_kv_heads} key/value heads")
        if config.vocab_size % mesh.tp:
            problems.append(f"tp={mesh.tp} must divide the vocabulary of {config.vocab_size}")
        if config.has_qkv_bias or config.has_wo_bias:
            problems.append("its plan for tp has no biases")
        if any(isinstance(spec.feed_forward, Experts) for spec in config.layers):
            problems.append("its plan for tp has no experts: choose tp=1")
    if mesh.ep > 1:
        problems.append(f"it has no expert parallelism for ep={mesh.ep}: choose ep=1")
    if problems:
        raise ValueError(f"the native engine cannot shard this model on {mesh}; "
                         f"{'; '.join(problems)}. Use the engine `own`, or another mesh")
