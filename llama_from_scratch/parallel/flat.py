"""Some parameters as one flat buffer, of which each rank of a group owns an equal part.

A collective that divides a tensor among ranks needs equal parts, and no number of ranks divides
every matrix. So the parameters of a unit are laid one after the other into one flat buffer, and
its length is padded to a multiple of the number of ranks:

    | wq       | wk  | wv  | wo       | norm | padding |      the whole buffer
    | part of rank 0 | part of rank 1 | part of rank 2 |      may cut any parameter anywhere

A rank keeps its part: the weights, later their gradients, and an optimizer's averages. The whole
buffer exists while it is needed. The model's parameters are views of it, so gathering the parts
gives the model its weights, and freeing the buffer takes them away. Backward sees them again after
the next gathering, because it kept views of the same buffer. `sharded` decides when.

Notebook 42. Source: Zhao et al., PyTorch FSDP, arXiv:2304.11277, section 4.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from llama_from_scratch.parallel.comm import Pending, RankGroup


class Flat:
    """The parameters `named`, which have one dtype and are all trained or all frozen.

    `pieces`: what this rank owns of each, one-dimensional; a parameter of which it owns nothing is
    not there. `spans`: which part of its parameter a piece is, as (first element, how many).
    `param_dtype`: the dtype in which the model computes. The pieces then have at least fp32, and by
    default both have the parameters' own dtype. Gradients are added up in at least fp32.
    `is_kept`: the whole buffer is never freed. Its part is then the same memory as the pieces, if
    both have the same dtype.
    The pieces are NaN until `fill` is called. Parameters on the meta device move to the group's.
    """

    def __init__(
        self, name: str, named: Mapping[str, nn.Parameter], group: RankGroup, *,
        param_dtype: torch.dtype | None = None, is_kept: bool = False,
    ) -> None:
        self.name, self.group, self.is_kept = name, group, is_kept
        self.params = dict(named)
        self.shapes = {n: p.shape for n, p in named.items()}
        first = next(iter(named.values()))
        self.is_trained = first.requires_grad
        self._dtype = first.dtype if param_dtype is None else param_dtype
        self._sum_dtype = torch.promote_types(first.dtype, torch.float32)
        own_dtype = first.dtype if param_dtype is None else self._sum_dtype
        self._starts, self._n = {}, 0
        for own_name, shape in self.shapes.items():
            self._starts[own_name] = self._n
            self._n += shape.numel()
        self.n_part = -(-self._n // group.size)
        self._first = group.rank * self.n_part
        self._whole = self._nan(self.n_part * group.size, self._dtype)
        self._views = {n: self._view(self._whole, n) for n in named}
        self._nowhere = {n: self._nan((), self._dtype).expand(s) for n, s in self.shapes.items()}
        own = self._whole[self._first:self._first + self.n_part]
        self._own = own if is_kept and own_dtype == self._dtype else self._nan(self.n_part,
                                                                               own_dtype)
        self.spans = {n: span for n in named if (span := self._span(n))[1]}
        self.pieces = {n: nn.Parameter(self._piece(self._own, n), requires_grad=self.is_trained)
                       for n in self.spans}
        for p in named.values():
            if p.is_meta:  # the object stays, so that a tied head stays tied
                torch.utils.swap_tensors(p, nn.Parameter(
                    torch.empty(0, device=group.device), requires_grad=p.requires_grad))
        self.is_whole = True
        self._gathering: Pending | None = None
        self.drop_grads()
        self._place() if is_kept else self.free()

    # --- weights ----------------------------------------------------------------------------------

    @torch.no_grad()
    def fill(self, name: str, weight: Shaped[Tensor, "*shape"]) -> None:
        """Copies in what belongs here of a whole parameter. Raises ValueError for another shape."""
        if weight.shape != self.shapes[name]:
            raise ValueError(f"{name} has the shape {tuple(self.shapes[name])}; got a weight of "
                             f"{tuple(weight.shape)}")
        if name in self.pieces:
            first, n = self.spans[name]
            self.pieces[name].copy_(weight.reshape(-1)[first:first + n])
        if self.is_kept:
            self._views[name].copy_(weight)
        else:
            self.free()  # what was gathered before is old

    def start_gather(self) -> None:
        """Begins to make the whole buffer, unless it is there or has begun."""
        if not self.is_whole and self._gathering is None:
            n_bytes = self._whole.numel() * self._whole.element_size()
            self._whole.untyped_storage().resize_(n_bytes)
            self._start_gather()

    def gather(self) -> None:
        """Gives the model's parameters their values."""
        self.start_gather()
        if self._gathering is not None:
            self._gathering.wait()
            self._gathering = None
            self._place()

    def start_refresh(self) -> None:
        """Begins to gather the parts into a whole buffer that is kept; `gather` completes it."""
        self._start_gather()

    def free(self) -> None:
        """Gives the buffer's memory back, unless it is kept. The parameters then read as NaN."""
        if not self.is_kept and (self.is_whole or self._gathering is not None):
            self.gather()
            for name, p in self.params.items():
                p.data = self._nowhere[name]
            self._whole.untyped_storage().resize_(0)
            self.is_whole = False

    def gathered(
        self, pieces: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype]
    ) -> dict[str, Tensor]:
        """Returns whole tensors from tensors like `pieces`. A collective.

        `dtypes`: of the tensors, by name, the same on every rank.
        """
        found = {}
        for dtype in dict.fromkeys(dtypes.values()):
            part = torch.zeros(self.n_part, dtype=dtype, device=self.group.device)
            names = [name for name in dtypes if dtypes[name] == dtype]
            for name in self.spans.keys() & set(names):
                self._piece(part, name).copy_(pieces[name].detach())
            whole = self.group.all_gather(part, note=f"{self.name} whole")
            found |= {name: self._view(whole, name) for name in names}
        return {name: found[name] for name in dtypes}

    # --- gradients --------------------------------------------------------------------------------

    @property
    def has_grad(self) -> bool:
        """Whether there are gradients that were not added up over the ranks yet."""
        return self._grad is not None

    @torch.no_grad()
    def add_grad(self, name: str, grad: Float[Tensor, "*shape"]) -> None:
        """Adds the gradient of one parameter on this rank."""
        if self._grad is None:
            self._grad = self._new_grad()
        view = self._view(self._grad, name)
        if name in self._filled:
            view.add_(grad)
        else:
            view.copy_(grad)
            self._filled.add(name)

    def drop_grads(self) -> None:
        """Forgets the gradients of a step. What is on its way to other ranks arrives nowhere."""
        self._grad: Tensor | None = None      # of the whole buffer, not added up over ranks yet
        self._filled: set[str] = set()        # what has a gradient there
        self._reducing: Pending | None = None
        self._grad_part: Tensor | None = None  # of the part, the sum over ranks and micro-batches

    def start_reduce(self) -> None:
        """Begins to add up the gradients over the ranks; each keeps its part of the sum."""
        grad = self._new_grad() if self._grad is None else self._grad
        self._grad = None
        for name in self.shapes.keys() - self._filled:
            self._view(grad, name).zero_()
        grad[self._n:].zero_()  # the padding
        self._filled.clear()
        self._reducing = self.group.start_reduce_scatter(grad, note=f"{self.name} reduce")

    def wait_reduce(self) -> None:
        """Adds the part to the sum of earlier micro-batches."""
        part = self._reducing.wait()
        self._reducing = None
        self._grad_part = part if self._grad_part is None else self._grad_part.add_(part)

    def start_replicate(self, replicate: RankGroup) -> Pending:
        """Begins to add up this part over groups of ranks that each have a whole model."""
        return replicate.start_all_reduce(self._whole_grad_part(), note=f"{self.name} replicate")

    def hand_out(self) -> None:
        """Gives each piece its gradient. Nothing of it is kept here."""
        part, self._grad_part = self._whole_grad_part(), None
        for name, piece in self.pieces.items():
            piece.grad = self._piece(part, name).to(piece.dtype)

    # --- inside -----------------------------------------------------------------------------------

    def _whole_grad_part(self) -> Tensor:
        if self._grad_part is None:  # no rank used any of these parameters
            self._grad_part = torch.zeros(self.n_part, dtype=self._sum_dtype,
                                          device=self.group.device)
        return self._grad_part

    def _new_grad(self) -> Tensor:
        return torch.empty(self.n_part * self.group.size, dtype=self._sum_dtype,
                           device=self.group.device)

    def _start_gather(self) -> None:
        self._gathering = self.group.start_all_gather(
            self._own.to(self._dtype), out=self._whole, note=f"{self.name} gather")

    def _place(self) -> None:
        for name, p in self.params.items():
            p.data = self._views[name]
        self.is_whole = True

    def _nan(self, shape: int | tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.full((shape,) if isinstance(shape, int) else shape, torch.nan, dtype=dtype,
                          device=self.group.device)

    def _view(self, whole: Tensor, name: str) -> Tensor:
        shape, first = self.shapes[name], self._starts[name]
        return whole[first:first + shape.numel()].view(shape)

    def _span(self, name: str) -> tuple[int, int]:
        """Returns the first element of a parameter that this rank owns, and how many it owns."""
        n = self.shapes[name].numel()
        first = min(max(self._first - self._starts[name], 0), n)
        last = min(max(self._first + self.n_part - self._starts[name], 0), n)
        return first, last - first

    def _piece(self, part: Tensor, name: str) -> Tensor:
        first, n = self.spans[name]
        start = self._starts[name] + first - self._first
        return part[start:start + n]
