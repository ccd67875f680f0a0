"""Data parallel: each rank has the whole model and other rows, and the ranks add up the gradients.

The loss of a step is one sum over all rows divided by one count, the number of targets on all
ranks. So a rank divides its own sum by that count, and the gradients of the ranks are added, never
averaged. Then each rank makes the same step from the same numbers, and the models stay equal.

Gradients travel in buckets. Backward finishes the last layer first, so the buckets are filled in
the reverse order of the parameters, and each is sent as soon as it is full, while backward computes
the next one. All ranks must send the same buckets in the same order. A rank whose rows skip a part
of the model has no gradients there; its buckets wait for their turn, and `finish` sends zeros.

    one gradient at a time:   DataParallel(model, group, bucket_bytes=0, is_overlapped=False)
    all gradients at once:    DataParallel(model, group, bucket_bytes=10**12, is_overlapped=False)
    buckets, overlapped:      DataParallel(model, group)

Notebook 41. Source: Li et al., PyTorch Distributed, arXiv:2006.15704, section 3.2.
"""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from llama_from_scratch.parallel.comm import Pending, RankGroup


class DataParallel:
    """Makes `model` on the ranks of `group` one model: see `placement.DataStrategy`.

    The model itself stays as it is; only its gradients are caught. At the beginning every rank
    receives the parameters and buffers of the group's first rank. Parameters on the meta device
    receive memory, filled with NaN until `fill` is called. A parameter without a gradient on every
    rank gets zeros. Gradients of bfloat16 and float16 parameters are added up in fp32.

    `bucket_bytes`: a bucket is full when it has at least this many. `is_overlapped`: send a bucket
    as soon as it is full, not at the end. The buckets are the gradients' only memory: `grad` of a
    parameter is a view of its bucket. Each micro-batch has one call of `backward`.
    `groups`: by name, the group of a parameter that not all ranks of `group` have, such as an
    expert. Its buckets are its group's own.
    Raises ValueError if the models of the ranks differ in names, shapes or dtypes, and
    RuntimeError if the calls are not in the order micro_batch, ..., micro_batch(is_last=True),
    finish, or if gradients of the previous step are still there.
    """

    def __init__(
        self, model: nn.Module, group: RankGroup, *, bucket_bytes: int = 25 * 2**20,
        is_overlapped: bool = True, groups: Mapping[str, RankGroup] | None = None,
    ) -> None:
        if bucket_bytes < 0:
            raise ValueError(f"bucket_bytes must be at least 0, which means one bucket for each "
                             f"parameter; got {bucket_bytes}")
        _refuse_other_models(model, group)
        self._groups = {} if groups is None else dict(groups)
        _make_equal(model, group, self._groups)
        self.group, self.is_overlapped, self._bucket_bytes = group, is_overlapped, bucket_bytes
        self._all = dict(model.named_parameters())
        self.params = {name: p for name, p in self._all.items() if p.requires_grad}
        self.frozen = {name: p for name, p in self._all.items() if not p.requires_grad}
        self._begin()
        self._hooks = [p.register_post_accumulate_grad_hook(self._take)
                       for p in self.params.values()]

    @contextlib.contextmanager
    def micro_batch(self, *, is_last: bool) -> Iterator[None]:
        """A context around forward and backward of a micro-batch; an error in it ends the step."""
        if self._is_ready:
            raise RuntimeError("finish() comes after the last micro-batch of a step; got another "
                               "micro_batch. Call finish(), or is_last=False before the last")
        if self._n_begun == 0:
            self._refuse_old_gradients()
        self._n_begun += 1
        self._now = is_last
        try:
            yield
        except BaseException:
            self._begin()
            for p in self.params.values():
                p.grad = None
            raise
        self._now, self._is_ready = None, is_last

    def finish(self) -> None:
        """After the last backward: every `params[name].grad` is the sum over all ranks."""
        if not self._is_ready:
            raise RuntimeError("finish() comes after micro_batch(is_last=True), which has not been "
                               "there in this step")
        for bucket in self.buckets:
            bucket.fill_gaps()
            if bucket.pending is None:
                self._start(bucket)
            if not self.is_overlapped:
                bucket.pending.wait()
        for bucket in self.buckets:
            bucket.hand_out()
        self._n_begun, self._is_ready = 0, False

    def after_step(self) -> None:
        """Does nothing: each rank has changed all of its weights in the same way."""

    def after_fill(self) -> None:
        """Does nothing: each rank computes with the tensors that were changed."""

    def place(self, name: str) -> tuple[tuple[int, ...], tuple[int, int]]:
        """Returns the shape of a parameter, and the span of it that each rank owns: all of it."""
        return tuple(self._all[name].shape), (0, self._all[name].numel())

    def fill(self, name: str, weight: Shaped[Tensor, "*shape"]) -> None:
        """Copies a parameter in; every rank is given the same one. Raises ValueError."""
        if name not in self._all:
            raise ValueError(f"fill needs the name of a parameter of the model; got {name!r}")
        if weight.shape != self._all[name].shape:
            raise ValueError(f"{name} has the shape {tuple(self._all[name].shape)}; got a weight "
                             f"of {tuple(weight.shape)}")
        with torch.no_grad():
            self._all[name].copy_(weight)

    def piece(self, name: str, whole: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
        """Returns the tensor as it is, because every rank has all of it."""
        return whole

    def whole(self, pieces: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Yields the tensors as they are, because every rank has all of each."""
        yield from pieces.items()

    def close(self) -> None:
        """Gives the plain model back: its gradients are caught no more."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    # --- inside -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Makes new buckets, because the buckets of a failed step may still be on their way."""
        self.buckets = [_Bucket(named, self._groups.get(next(iter(named)), self.group))
                        for named in grouped(self.params, n_bytes=self._bucket_bytes,
                                             groups=self._groups)]
        self._bucket_of = {p: bucket for bucket in self.buckets for p in bucket.views}
        self._n_begun, self._is_ready, self._now = 0, False, None  # _now: is_last, within one

    def _take(self, p: nn.Parameter) -> None:
        """Puts a gradient into its bucket, right after backward has completed it."""
        if self._now is None:
            raise RuntimeError("backward must be called inside of micro_batch(...); otherwise the "
                               "ranks would not add up these gradients. For the plain model, "
                               "close() this DataParallel first")
        bucket = self._bucket_of[p]
        bucket.take(p)
        if not self._now:
            return
        if p in bucket.arrived:
            raise RuntimeError("each micro-batch has one backward, because gradients are sent when "
                               "they arrive; got a second one. Add up the losses first, or use a "
                               "micro-batch for each")
        bucket.arrived.add(p)
        if self.is_overlapped:
            self._start_full_ones()

    def _start_full_ones(self) -> None:
        """Starts what is full, up to the first bucket that is not: the order never changes."""
        for bucket in self.buckets:
            if bucket.pending is None:
                if len(bucket.arrived) < len(bucket.views):
                    return
                self._start(bucket)

    def _start(self, bucket: "_Bucket") -> None:
        bucket.pending = bucket.group.start_all_reduce(bucket.flat, note=bucket.name)

    def _refuse_old_gradients(self) -> None:
        if left := [name for name, p in self.params.items() if p.grad is not None]:
            raise RuntimeError("a step begins without gradients, because old ones would be added "
                               f"up over the ranks a second time; {', '.join(left[:3])} "
                               f"{'and others have one' if len(left) > 3 else 'has one'}. "
                               "Set grad = None after each step, as zero_grad() does")


class _Bucket:
    """Gradients that travel together. `views`: for each parameter, its part of `flat`."""

    def __init__(self, named: Mapping[str, nn.Parameter], group: RankGroup) -> None:
        params, self.group = list(named.values()), group
        self.flat = torch.empty(sum(p.numel() for p in params), dtype=_sum_dtype(params[0]),
                                device=params[0].device)
        parts = self.flat.split([p.numel() for p in params])
        self.views = {p: part.view(p.shape) for p, part in zip(params, parts, strict=True)}
        first, *others = named
        self.name = f"{first} and {len(others)} more" if others else first
        self.pending: Pending | None = None
        self.filled: set[nn.Parameter] = set()   # in this step
        self.arrived: set[nn.Parameter] = set()  # in the step's last micro-batch

    def take(self, p: nn.Parameter) -> None:
        view = self.views[p]
        if p not in self.filled:
            view.copy_(p.grad)
            self.filled.add(p)
        elif p.grad is not view:
            view.add_(p.grad)
        # Backward adds the next micro-batch to the bucket itself, unless the dtypes differ.
        p.grad = view if view.dtype == p.dtype else None

    def fill_gaps(self) -> None:
        for p, view in self.views.items():
            if p not in self.filled:
                view.zero_()

    def hand_out(self) -> None:
        self.pending.wait()
        for p, view in self.views.items():
            p.grad = view.to(p.dtype)  # the view itself if it has that dtype
        self.pending = None
        self.filled.clear()
        self.arrived.clear()


def _sum_dtype(p: Tensor) -> torch.dtype:
    """Returns the dtype in which gradients are added: bfloat16 would lose small terms."""
    return torch.float32 if p.element_size() < 4 else p.dtype


def grouped(
    params: Mapping[str, nn.Parameter], *, n_bytes: int,
    groups: Mapping[str, RankGroup] | None = None,
) -> list[dict[str, nn.Parameter]]:
    """Returns which parameters share a bucket, in the order in which the buckets are sent."""
    full: list[dict[str, nn.Parameter]] = []
    filling: dict[tuple, dict[str, nn.Parameter]] = {}
    for name, p in reversed(params.items()):
        kind = _sum_dtype(p), p.device, (groups or {}).get(name)
        named = filling.setdefault(kind, {})
        named[name] = p
        if sum(q.numel() for q in named.values()) * kind[0].itemsize >= n_bytes:
            full.append(filling.pop(kind))
    return full + list(filling.values())


def _refuse_other_models(model: nn.Module, group: RankGroup) -> None:
    own = {name: f"{tuple(p.shape)} {p.dtype}, {'trained' if p.requires_grad else 'frozen'}"
           for name, p in model.named_parameters()}
    for rank, other in enumerate(group.gather_objects(own)):
        for name in own.keys() | other.keys():
            mine, theirs = own.get(name, "absent"), other.get(name, "absent")
            if mine != theirs:
                raise ValueError(f"all ranks must have the same model; {name} is {mine} on rank "
                                 f"{group.ranks[group.rank]} and {theirs} on rank "
                                 f"{group.ranks[rank]}. Build it from the same config")


@torch.no_grad()
def _make_equal(model: nn.Module, group: RankGroup, groups: Mapping[str, RankGroup]) -> None:
    for name, p in model.named_parameters():
        if p.is_meta:  # the object stays, so that a tied head stays tied
            made = nn.Parameter(torch.full_like(p, torch.nan, device=group.device),
                                requires_grad=p.requires_grad)
            torch.utils.swap_tensors(p, made)
        else:
            groups.get(name, group).broadcast(p.detach(), note=name)
    for name, buffer in model.named_buffers():
        group.broadcast(buffer, note=name)
