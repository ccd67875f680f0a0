"""Tensor and sequence parallel: every matrix of a finished model is cut among the ranks.

Of two matrices that follow each other, the first is cut by its outputs and the second by its
inputs. Then a rank computes from the first to the second alone, with some of the heads or some of
the hidden channels, and one sum over the ranks completes the result: two sums per layer forward and
two backward. The embedding and the head are cut along the vocabulary (`vocab_parallel`).

Between these pairs all ranks hold the whole residual stream and compute the same with it. With
**sequence parallel** each holds it for some of the tokens. The sum becomes a reduce-scatter before
and an all-gather after that part: as many bytes, less memory, and no norm is computed twice.

`split` cuts parameters in place and adds hooks. The model computes what it did before, so
generation and evaluation need no change.

Notebook 43. Sources: Megatron-LM, arXiv:1909.08053, section 3; Korthikanti et al.,
arXiv:2205.05198, section 4.2.2 (sequence parallel).
"""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from llama_from_scratch.config import record
from llama_from_scratch.model.inputs import ImageInputs
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.parallel import differentiable, divisible, vocab_parallel
from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.mesh import neighbors
from llama_from_scratch.parallel.pipeline.stage import Absent
from llama_from_scratch.parallel.placement import Slice
from llama_from_scratch.train.data import Batch
from llama_from_scratch.vision.adapter import VisionLlama
from llama_from_scratch.vision.cross_attention import CrossAttention, CrossBlock
from llama_from_scratch.vision.encoder import VisionAttention

TOKENS = 1
"""The axis of tokens in a residual stream (B, T, D)."""


class RowLinear(nn.Module):
    """A linear layer of which this rank holds some of the inputs. It returns a part of a sum.

    It takes the parameters of an `nn.Linear` over. `with_bias` is for the complete sum.
    """

    def __init__(self, part: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = part.weight, part.bias

    def forward(self, x: Float[Tensor, "*batch part"]) -> Float[Tensor, "*batch D"]:
        return F.linear(x, self.weight)

    def with_bias(self, total: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """Returns the sum with the bias added, if there is one."""
        return total if self.bias is None else total + self.bias.to(total.dtype)


@record
class _ImagesOfSlice(ImageInputs):
    """`sees_image` of some tokens only; `whole` has all of them."""

    whole: ImageInputs


def split(
    model: Llama, group: RankGroup, *, is_sequence_parallel: bool = False
) -> "TensorParallel":
    """Cuts a model in place among the ranks of a group, and returns what keeps its parts together.

    Every rank calls it, before a data-parallel strategy. The model may be on the meta device.
    Raises ValueError if the sizes of the model do not divide (`divisible`). Then it is unchanged.
    """
    divisible.refuse_unfit(model, n_ranks=group.size)
    return TensorParallel(model, group, is_sequence_parallel=is_sequence_parallel)


class TensorParallel:
    """The slices of a model that `split` has cut.

    `slices`: which part of each parameter this rank holds, by the names of the model's parameters.
    """

    def __init__(self, model: Llama, group: RankGroup, *, is_sequence_parallel: bool) -> None:
        self.group, self.is_sequence_parallel = group, is_sequence_parallel
        self._of_copies = neighbors(
            group, max(group.size // model.config.n_kv_heads, 1), name="copies")
        self._cuts: dict[nn.Parameter, Slice] = {}
        self._n_tokens, self._has_local_logits = 0, False
        of_text = set(model.layers.modules())
        for module in list(model.modules()):
            if type(module) in divisible.PAIRS:
                self._cut_pair(module, is_of_text=module in of_text)
        self._cut_vocabulary(model)
        if isinstance(model, VisionLlama):
            # What the blocks of cross-attention do with the images is each rank's own.
            model.vision.register_forward_hook(
                lambda _, args, states: differentiable.copy(states, group, note="images"))
        if is_sequence_parallel:
            self._cut_tokens(model)
        self.slices = self._all_slices(model)

    # --- cutting --------------------------------------------------------------------------------

    def _cut(self, p: nn.Parameter | None, *, axis: int, n_copies: int = 1) -> None:
        if p is None or p in self._cuts:
            return
        mine = Slice(axis=axis, part=self.group.rank // n_copies, n_copies=n_copies,
                     n_parts=self.group.size // n_copies, is_partial=n_copies > 1)
        p.data, p.grad = mine.of(p.data).clone(memory_format=torch.contiguous_format), None
        self._cuts[p] = mine

    def _cut_pair(self, module: nn.Module, *, is_of_text: bool) -> None:
        """Cuts the first matrices of a pair by outputs and the second by inputs, and adds hooks."""
        pair = divisible.PAIRS[type(module)]
        for name in pair.first:
            linear = getattr(module, name)
            is_shared = name in pair.of_kv_heads and is_of_text
            for p in linear.parameters():
                self._cut(p, axis=0, n_copies=self._of_copies.size if is_shared else 1)
            linear.out_features = len(linear.weight)
        if isinstance(module, VisionAttention):
            module.heads = -1, module.heads[1]
        second = RowLinear(getattr(module, pair.second))
        self._cut(second.weight, axis=1)
        setattr(module, pair.second, second)
        is_cut = is_of_text and self.is_sequence_parallel
        module.register_forward_pre_hook(lambda _, args: self._entered(
            args, is_cut=is_cut, note=f"{pair.name} input"))
        module.register_forward_hook(lambda _, args, part: second.with_bias(self._completed(
            part, is_cut=is_cut, note=f"{pair.name} output")))

    def _cut_vocabulary(self, model: Llama) -> None:
        if not isinstance(model.tok_embeddings, Absent):
            self._cut(model.tok_embeddings.weight, axis=0)
            model.tok_embeddings = vocab_parallel.VocabEmbedding(model.tok_embeddings, self.group)
        if isinstance(model.output, Absent):
            return
        self._cut(model.output.weight, axis=0)  # a tied one is cut already
        model.output.out_features = len(model.output.weight)
        model.output.register_forward_pre_hook(
            lambda _, args: (differentiable.copy(args[0], self.group, note="head input"),))
        model.output.register_forward_hook(
            lambda _, args, logits: logits if self._has_local_logits
            else differentiable.gather(logits, self.group, axis=-1, note="logits"))

    def _cut_tokens(self, model: Llama) -> None:
        """Lets each rank hold some tokens of the stream, from the first layer to the last."""
        def begin(_, args: tuple) -> tuple:
            x, *others = args
            self._n_tokens = x.shape[TOKENS]
            return differentiable.scatter(
                self._padded(x), self.group, axis=TOKENS, note="stream"), *others

        def end(_, args: tuple, x: Tensor) -> Tensor:
            whole = differentiable.gather(x, self.group, axis=TOKENS, note="stream")
            return whole.narrow(TOKENS, 0, self._n_tokens)

        def cut_sight(_, args: tuple) -> tuple:
            x, images = args
            sees_BT1 = self._padded(images.sees_image[..., None])
            mine = Slice(axis=TOKENS, part=self.group.rank, n_parts=self.group.size).of(sees_BT1)
            return x, _ImagesOfSlice(states=images.states, visible=images.visible, whole=images,
                                     sees_image=mine[..., 0], is_blind=images.is_blind)

        is_here = [not isinstance(block, Absent) for block in model.layers]
        for i, block in enumerate(model.layers):  # a rank of a pipeline has runs of neighbors
            if is_here[i] and not (i and is_here[i - 1]):
                block.register_forward_pre_hook(begin)
            if is_here[i] and not (i + 1 < len(is_here) and is_here[i + 1]):
                block.register_forward_hook(end)
        for module in model.layers.modules():
            if isinstance(module, CrossBlock):
                module.register_forward_pre_hook(cut_sight)

    def _all_slices(self, model: Llama) -> dict[str, Slice]:
        size = self.group.size
        whole, partial = (Slice(n_copies=size, is_partial=is_partial and size > 1)
                          for is_partial in (False, True))
        # These see a rank's own heads only, or its own tokens.
        incomplete = {p for module in model.layers.modules() if isinstance(module, CrossAttention)
                      for norm in (module.q_norm, module.k_norm) for p in norm.parameters()}
        if self.is_sequence_parallel:
            incomplete.update(model.layers.parameters())
        return {name: self._cuts.get(p, partial if p in incomplete else whole)
                for name, p in model.named_parameters()}

    # --- what happens in a forward pass -----------------------------------------------------------

    def _entered(self, args: tuple, *, is_cut: bool, note: str) -> tuple:
        x, *others = args
        if not is_cut:
            return differentiable.copy(x, self.group, note=note), *others
        whole = differentiable.all_gather(x, self.group, axis=TOKENS, note=note)
        others = [other.whole if isinstance(other, _ImagesOfSlice) else other for other in others]
        return whole.narrow(TOKENS, 0, self._n_tokens), *others

    def _completed(self, part: Tensor, *, is_cut: bool, note: str) -> Tensor:
        if not is_cut:
            return differentiable.add_up(part, self.group, note=note)
        return differentiable.reduce_scatter(
            self._padded(part), self.group, axis=TOKENS, note=note)

    def _padded(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, -x.shape[TOKENS] % self.group.size))

    # --- what a training step needs ---------------------------------------------------------------

    @contextlib.contextmanager
    def local_logits(self) -> Iterator[None]:
        """A context in which the model returns logits of this rank's part of the vocabulary."""
        self._has_local_logits, before = True, self._has_local_logits
        try:
            yield
        finally:
            self._has_local_logits = before

    def loss(self, model: Llama, batch: Batch, *, is_bf16: bool) -> Float[Tensor, ""]:
        """Returns what `sum_of_nats` returns of the plain model, without whole logits."""
        with (torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=is_bf16),
              self.local_logits()):
            logits = batch.logits(model)
        return vocab_parallel.cross_entropy(logits, batch.targets, group=self.group).sum()

    def finish_gradients(self, grads: Mapping[str, Shaped[Tensor, "*any"]]) -> None:
        """Adds up, in place, the gradients of which each rank has computed a part.

        `grads`: by name, each as large as the parameter, or a piece of it that is the same piece on
        all ranks of the group. Afterward copies are equal to the bit.
        """
        for group in {self._of_copies.size: self._of_copies, self.group.size: self.group}.values():
            names = [name for name in sorted(grads)
                     if self.slices[name].is_partial and self.slices[name].n_copies == group.size]
            for dtype in dict.fromkeys(grads[name].dtype for name in names):
                _add_up_together([grads[name] for name in names if grads[name].dtype == dtype],
                                 group)

    def whole(self, name: str, part: Shaped[Tensor, "*part"]) -> Shaped[Tensor, "*whole"]:
        """Returns the whole of a parameter, or of its gradient, from every rank's slice."""
        mine = self.slices[name]
        if mine.n_parts == 1:
            return part
        parts = self.group.all_gather(part[None], note=name)[:: mine.n_copies]
        return torch.cat(tuple(parts), dim=mine.axis)


def _add_up_together(tensors: list[Tensor], group: RankGroup) -> None:
    summed = group.all_reduce(torch.cat([x.flatten() for x in tensors]), note="partial gradients")
    for x, total in zip(tensors, summed.split([x.numel() for x in tensors]), strict=True):
        x.copy_(total.view_as(x))
