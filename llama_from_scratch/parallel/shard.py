"""`shard` puts a finished model onto a mesh of ranks: first its matrices are cut, then its weights.

    dp     each rank reads other rows of the batch; stage 0 keeps the whole model on every rank,
           stage 1 divides the optimizer's averages, 2 the gradients too, 3 the weights too
    tp     each rank holds slices of each matrix, and reads the same rows

Every strategy is a module of its own that hooks into the model; the model's source knows none of
them. Losses are sums over the global number of targets, so gradients are added up, never averaged.

Notebooks 41, 42 and 43.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llama_from_scratch.checkpoint.sharded.region import Region
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.parallel import tensor_parallel
from llama_from_scratch.parallel.clip import clip_gradients, gradient_norm
from llama_from_scratch.parallel.data_parallel import DataParallel
from llama_from_scratch.parallel.mesh import Axes
from llama_from_scratch.parallel.placement import DataStrategy, Slice, each_once, region_of
from llama_from_scratch.parallel.sharded import Sharded
from llama_from_scratch.parallel.tensor_parallel import TensorParallel
from llama_from_scratch.train.protocols import Loss

STAGES = (0, 1, 2, 3)


def shard(
    model: Llama, axes: Axes, *, stage: int = 0, is_sequence_parallel: bool = False,
    keeps_after_forward: bool = False, bucket_bytes: int = 25 * 2**20,
    param_dtype: torch.dtype | None = None,
    weights: Iterable[tuple[str, Tensor]] | None = None,
) -> "ShardedModel":
    """Changes `model` in place, so that it computes together with the other ranks.

    All ranks call it, with the same arguments. `stage`: what is divided among the ranks along `dp`
    (see above). `is_sequence_parallel`: ranks along `tp` also divide the tokens between the layers.
    `keeps_after_forward`: stage 3 keeps the gathered weights until backward, as Llama 3 did.
    `bucket_bytes`: of gradients that stage 0 sends at once. `param_dtype`: the dtype that stages 1
    to 3 compute in, while the weights that the optimizer changes stay as they are. `weights`: the
    whole weights by name, one after the other, for a model without memory (`unwritten`, and then
    `fresh_weights` or the tensors of an opened checkpoint).
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
    if any(p.is_meta for p in model.parameters()) != (weights is not None):
        raise ValueError("a model without memory needs `weights`, and any other model has its own; "
                         f"got weights={'None' if weights is None else 'some'}. For fresh ones: "
                         "fresh_weights(config, seed=0)")
    tensor = tensor_parallel.split(model, axes.tp, is_sequence_parallel=is_sequence_parallel)
    if stage == 0:
        data: DataStrategy = DataParallel(model, axes.data, bucket_bytes=bucket_bytes)
    else:
        data = Sharded(model, axes.dp, stage=stage, replicate=axes.replicate,
                       keeps_after_forward=keeps_after_forward, param_dtype=param_dtype)
    if stage == 3:
        model.register_state_dict_pre_hook(_refuse_state_dict)
    made = ShardedModel(model, axes, tensor=tensor, data=data)
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

    `tensor`, `data`: the strategies along `tp` and along the other axes. `params`: what this rank's
    optimizer changes, by name: its slices, or its one-dimensional pieces of them.
    """

    def __init__(
        self, model: Llama, axes: Axes, *, tensor: TensorParallel, data: DataStrategy
    ) -> None:
        self.model, self.axes, self.tensor, self.data = model, axes, tensor, data

    @property
    def params(self) -> dict[str, nn.Parameter]:
        return self.data.params

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """`params`, and the frozen weights."""
        return self.data.params | self.data.frozen

    @property
    def loss(self) -> Loss:
        """The sum of nats over a batch's targets, without gathering the logits along `tp`."""
        return self.tensor.loss

    def loss_by(self, loss: Loss) -> Loss:
        """Returns a loss of the reader, which sees whole logits, as it is."""
        return loss

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
            found[name] = region_of(local, [self.slices[name]], span=span)
        return found

    def after_fill(self) -> None:
        """After `weights` were changed in place: the model computes with them. All ranks call it.
        """
        self.data.after_fill()

    def fill(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Copies whole weights in, by name. Raises ValueError for missing or unknown names."""
        for name, weight in each_once(weights, self.slices):
            self.data.fill(name, self.slices[name].of(weight))
        self.data.after_step()

    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[None]:
        """A context around forward and backward of one micro-batch."""
        return self.data.micro_batch(is_last=is_last)

    def finish_gradients(self) -> None:
        """After the last backward: completes the gradients of `params`."""
        self.data.finish()
        self.tensor.finish_gradients({name: p.grad for name, p in self.params.items()
                                      if p.grad is not None})

    def clip(self, max_norm: float) -> Float[Tensor, ""]:
        """Scales down gradients longer than `max_norm`, and returns their length before."""
        return clip_gradients(self.params, **self._counted_once(), max_norm=max_norm)

    def gradient_norm(self, norm_type: float = 2.0) -> Float[Tensor, ""]:
        """Returns the length of all gradients as one vector, each element counted once."""
        return gradient_norm(self.params, **self._counted_once(), norm_type=norm_type)

    def _counted_once(self) -> dict[str, Any]:
        shards = self.axes.dp if isinstance(self.data, Sharded) else None
        return dict(slices=self.slices, tp=self.axes.tp, shards=shards)

    def after_step(self) -> None:
        """After the optimizer: the model computes with the new weights."""
        self.data.after_step()

    def piece(self, name: str, whole: Tensor) -> Tensor:
        """Returns what `params[name]` stands for of a whole tensor."""
        return self.data.piece(name, self.slices[name].of(whole))

    @torch.no_grad()
    def whole(self, pieces: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Yields whole tensors by name, from this rank's pieces. All ranks call it.

        The pieces are `params`, their gradients, or averages of the optimizer.
        """
        for name, local in self.data.whole(pieces):
            yield name, self.tensor.whole(name, local)
