"""`shard` puts a finished model onto a mesh of ranks: layers first, then matrices, then weights.

    pp     each rank has some of the layers, and micro-batches go from rank to rank
    tp     each rank holds slices of each matrix, and reads the same rows
    cp     each rank has other tokens of the same rows, and attention reaches across ranks
    dp     each rank reads other rows of the batch; stage 0 keeps the whole model on every rank,
           stage 1 divides the optimizer's averages, 2 the gradients too, 3 the weights too
    ep     neighbors among these hold some of the experts each, and send each other tokens

Every strategy is a module of its own that hooks into the model; the model's source knows none of
them. Losses are sums over the global number of targets, so gradients are added up, never averaged.

Notebooks 41 to 47.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llama_from_scratch.checkpoint.sharded.region import Region
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.parallel import divisible, expert_parallel
from llama_from_scratch.parallel.clip import clip_gradients, gradient_norm
from llama_from_scratch.parallel.context import ContextParallel
from llama_from_scratch.parallel.data_parallel import DataParallel
from llama_from_scratch.parallel.expert_parallel import ExpertParallel
from llama_from_scratch.parallel.fits import n_micro_batches
from llama_from_scratch.parallel.mesh import Axes
from llama_from_scratch.parallel.pipeline.plan import PipelinePlan
from llama_from_scratch.parallel.pipeline.run import PipelineRank, piped
from llama_from_scratch.parallel.pipeline.stage import names_on_both_ends, whole_of_stages
from llama_from_scratch.parallel.placement import DataStrategy, Slice, each_once, region_of
from llama_from_scratch.parallel.sharded import Sharded
from llama_from_scratch.parallel.tensor_parallel import TensorParallel
from llama_from_scratch.train.data import Batch
from llama_from_scratch.train.parts import TrainParts, one_after_another
from llama_from_scratch.train.protocols import Loss, StepBatch

STAGES = (0, 1, 2, 3)


def shard(
    model: Llama, axes: Axes, *, stage: int = 0, is_sequence_parallel: bool = False,
    keeps_after_forward: bool = False, bucket_bytes: int = 25 * 2**20,
    param_dtype: torch.dtype | None = None, capacity: float | None = None,
    context: str = "gather", pipeline: PipelinePlan | None = None,
    weights: Iterable[tuple[str, Tensor]] | None = None,
) -> "ShardedModel":
    """Changes `model` in place, so that it computes together with the other ranks.

    All ranks call it, with the same arguments. `stage`: what is divided among the ranks along `dp`
    (see above). `is_sequence_parallel`: ranks along `tp` also divide the tokens between the layers.
    `keeps_after_forward`: stage 3 keeps the gathered weights until backward, as Llama 3 did.
    `bucket_bytes`: of gradients that stage 0 sends at once. `param_dtype`: the dtype that stages 1
    to 3 compute in, while the weights that the optimizer changes stay as they are. `capacity`: how
    many tokens an expert takes, in units of its even share; None for all. `context`: the style of
    ranks along `cp`, "gather" or "ring". `pipeline`: how the ranks along `pp` work, by default
    1F1B; they add up gradients over all micro-batches before ranks along `dp` exchange them, as
    Llama 3 does. `weights`: the whole weights by name, one after the other, for a model without
    memory (`unwritten`, and then `fresh_weights` or the tensors of an opened checkpoint).
    Raises ValueError if a size cannot be divided, naming the sizes that can.
    """
    if stage not in STAGES:
        raise ValueError(f"the stage must be one of 0, 1, 2, 3; got {stage!r}. 0 keeps the whole "
                         "model on every rank")
    if stage == 0 and (keeps_after_forward or param_dtype is not None):
        raise ValueError("keeps_after_forward and param_dtype are for the stages 1 to 3; got "
                         f"stage=0, keeps_after_forward={keeps_after_forward}, "
                         f"param_dtype={param_dtype}")
    refuse_tokens_for_one(axes, is_sequence_parallel=is_sequence_parallel)
    if capacity is not None and is_sequence_parallel:
        raise ValueError("sequence parallelism pads the tokens, and padding would take the room of "
                         f"tokens in an expert; got capacity={capacity} with it. Leave one out")
    divisible.refuse_unfit(model, n_ranks=axes.tp.size)
    expert_parallel.refuse_unfit(model, n_ranks=axes.ep.size, capacity=capacity)
    if any(p.is_meta for p in model.parameters()) != (weights is not None):
        raise ValueError("a model without memory needs `weights`, and any other model has its own; "
                         f"got weights={'None' if weights is None else 'some'}. For fresh ones: "
                         "fresh_weights(config, seed=0)")
    if pipeline is not None and axes.mesh.pp == 1:
        raise ValueError(f"a PipelinePlan is for ranks along pp; got the mesh {axes.mesh}, where "
                         "pp=1. Choose a larger pp, or leave it out")
    names = [name for name, _ in model.named_parameters()]
    line = None
    if axes.mesh.pp > 1:
        line = piped(model, axes, PipelinePlan() if pipeline is None else pipeline,
                     param_dtype=param_dtype)
    experts = ExpertParallel(model, axes.ep, capacity=capacity)
    tensor = TensorParallel(model, axes.tp, is_sequence_parallel=is_sequence_parallel)
    if line is not None:
        line.split_backward()
    if axes.mesh.cp > 1:
        ContextParallel(model, axes.cp, style=context)
    if stage == 0:
        data: DataStrategy = DataParallel(
            model, axes.gradients, bucket_bytes=bucket_bytes,
            groups=dict.fromkeys(experts.slices, axes.expert_gradients))
    else:
        groups = dict.fromkeys(experts.slices, axes.expert_shards)
        # A buffer of its own, which is the same on both ends.
        groups |= dict.fromkeys(names_on_both_ends(model.config, axes.ends), axes.shards)
        data = Sharded(model, axes.shards, stage=stage, replicate=axes.replicate,
                       keeps_after_forward=keeps_after_forward, param_dtype=param_dtype,
                       reduces_once=line is not None and stage > 1, groups=groups)
    if stage == 3:
        model.register_state_dict_pre_hook(_refuse_state_dict)
    made = ShardedModel(model, axes, experts=experts, tensor=tensor, data=data, names=names,
                        pipeline=line)
    if weights is not None:
        made.fill(weights)
    return made


def _refuse_state_dict(model: nn.Module, prefix: str, keep_vars: bool) -> None:
    """Raises ValueError instead of returning weights that are not there. Names may be asked."""
    if not keep_vars:
        raise ValueError("with stage 3 no rank has the weights between two passes, and state_dict "
                         "would return NaN. Call dict(sharded.whole(sharded.weights)) on all ranks")


def refuse_tokens_for_one(axes: Axes, *, is_sequence_parallel: bool) -> None:
    """Raises ValueError if no other rank along `tp` could take a part of the tokens."""
    if is_sequence_parallel and axes.mesh.tp == 1:
        raise ValueError("sequence parallelism divides the tokens among the ranks along tp; got "
                         f"the mesh {axes.mesh}, where tp=1. Choose a larger tp, or leave it out")


class ShardedModel:
    """A model on a mesh, seen from one rank. `model` computes as the plain one does.

    `experts`, `tensor`, `data`: the strategies along `ep`, `tp` and the other axes. `pipeline`: the
    one along `pp`, or None. `params`: what this rank's optimizer changes, by name: its slices, or
    its one-dimensional pieces of them. `names`: of the parameters of the whole model, on all ranks.
    """

    def __init__(
        self, model: Llama, axes: Axes, *, experts: ExpertParallel, tensor: TensorParallel,
        data: DataStrategy, names: Collection[str], pipeline: PipelineRank | None,
    ) -> None:
        self.model, self.axes = model, axes
        self.experts, self.tensor, self.data = experts, tensor, data
        self.names, self.pipeline = tuple(names), pipeline
        self._on_both_ends = names_on_both_ends(model.config, axes.ends)
        if self._on_both_ends:
            self._make_tied_equal()

    @property
    def params(self) -> dict[str, nn.Parameter]:
        return self.data.params

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """`params`, and the frozen weights."""
        return self.data.params | self.data.frozen

    @property
    def loss(self) -> Loss:
        """The sum of nats over a batch's targets, without gathering the logits along `tp`.

        In a pipeline it is for evaluating, without gradients; `accumulate` is for training.
        """
        return self.loss_by(self.tensor.loss)

    def loss_by(self, loss: Loss) -> Loss:
        """Returns a loss of the reader, which sees whole logits, for this model."""
        if self.pipeline is None:
            return loss

        def through_all_ranks(model: Llama, batch: Batch, *, is_bf16: bool) -> Tensor:
            if model is not self.model:  # the last rank, where the stream has come through
                return loss(model, batch, is_bf16=is_bf16)
            if torch.is_grad_enabled():
                raise RuntimeError("in a pipeline, forward and backward of a micro-batch do not "
                                   "follow each other. Call accumulate(...) to train, and this "
                                   "loss within torch.no_grad() to evaluate")
            return self.pipeline.loss(batch, loss=loss, is_bf16=is_bf16)

        return through_all_ranks

    def accumulate(
        self, model: Llama, micro_batches: Sequence[StepBatch], parts: TrainParts, *,
        n_targets: int, is_bf16: bool = False,
    ) -> Float[Tensor, ""]:
        """Adds up the gradients of all micro-batches: see `TrainParts.accumulate`.

        Returns the sum of the losses that this rank has computed: in a pipeline, 0 except on the
        last rank.
        """
        if self.pipeline is None:
            return one_after_another(model, micro_batches, parts, n_targets=n_targets,
                                     is_bf16=is_bf16)
        n_rows = [len(micro.ids) for micro in micro_batches]
        n_micro_batches(sum(n_rows), max(n_rows))  # refuses uneven ones
        with self.data.micro_batch(is_last=False):
            total = self.pipeline.step(micro_batches, loss=parts.loss, n_targets=n_targets,
                                       is_bf16=is_bf16)
        with self.data.micro_batch(is_last=True):
            pass
        return total

    @property
    def slices(self) -> dict[str, Slice]:
        """Which slice of each whole parameter the ranks along `tp` hold."""
        return self.tensor.slices

    @property
    def regions(self) -> dict[str, Region]:
        """Which elements of the whole tensors this rank's `weights` are, by name."""
        found = {}
        for name in self.weights:
            local, span = self.data.place(name)
            cuts = [each[name] for each in (self.experts.slices, self.slices) if name in each]
            found[name] = region_of(local, cuts, span=span)
        return found

    def after_fill(self) -> None:
        """After `weights` were changed in place: the model computes with them. All ranks call it.
        """
        self.data.after_fill()

    def fill(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Copies whole weights in, by name. Raises ValueError for missing or unknown names."""
        for name, weight in each_once(weights, self.names):
            if name in self.slices:  # otherwise it is in a layer of another rank
                self.data.fill(name, self._slice(name, weight))
        self.data.after_step()

    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[None]:
        """A context around forward and backward of one micro-batch."""
        return self.data.micro_batch(is_last=is_last)

    def finish_gradients(self) -> None:
        """After the last backward: completes the gradients of `params`."""
        self.data.finish()
        self.tensor.finish_gradients({name: p.grad for name, p in self.params.items()
                                      if p.grad is not None})
        for p in self._tied.values():
            self.axes.ends.all_reduce(p.grad, note="tied gradient")

    def clip(self, max_norm: float) -> Float[Tensor, ""]:
        """Scales down gradients longer than `max_norm`, and returns their length before."""
        return clip_gradients(self.params, **self._counted_once(), max_norm=max_norm)

    def gradient_norm(self, norm_type: float = 2.0) -> Float[Tensor, ""]:
        """Returns the length of all gradients as one vector, each element counted once."""
        return gradient_norm(self.params, **self._counted_once(), norm_type=norm_type)

    def _counted_once(self) -> dict[str, Any]:
        shards, of_experts = None, ()
        if isinstance(self.data, Sharded):
            shards, of_experts = self.axes.shards, (self.axes.expert_shards,)
        return dict(slices=self.slices, tp=self.axes.tp, shards=shards, pp=self.axes.pp,
                    elsewhere=self.experts.groups(*of_experts),
                    twice=self._tied if self.axes.pp.rank > 0 else {})

    @property
    def _tied(self) -> dict[str, nn.Parameter]:
        """What two ranks of a pipeline have, the one with the embedding and the one with the head.
        """
        return {name: p for name, p in self.params.items() if name in self._on_both_ends}

    def _make_tied_equal(self) -> None:
        for p in self._tied.values():
            with torch.no_grad():
                self.axes.ends.broadcast(p, note="first weights")
        self.data.after_step()

    def after_step(self) -> None:
        """After the optimizer: the model computes with the new weights."""
        self.data.after_step()

    def piece(self, name: str, whole: Tensor) -> Tensor:
        """Returns what `params[name]` stands for of a whole tensor."""
        return self.data.piece(name, self._slice(name, whole))

    def _slice(self, name: str, whole: Tensor) -> Tensor:
        return self.slices[name].of(self.experts.of(name, whole))

    @torch.no_grad()
    def whole(self, pieces: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Yields whole tensors by name, from this rank's pieces. All ranks call it.

        The pieces are `params`, their gradients, or averages of the optimizer.
        """
        yield from whole_of_stages(self.axes.pp, self._whole_of_stage(pieces),
                                   skips=self._on_both_ends)

    def _whole_of_stage(self, pieces: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        for name, local in self.data.whole(pieces):
            yield name, self.experts.whole(name, self.tensor.whole(name, local))
