"""ZeRO: ranks that read different rows own equal parts of the model instead of copies.

Copies of a model repeat the weights, their gradients, and the averages of the optimizer. Here each
rank owns a part of everything (see `flat`), steps only that part, and the ranks exchange the rest:

    stage 1   parts of the averages           finish: reduce-scatter    after the step: all-gather
    stage 2   ... and of the gradients        backward: reduce-scatter unit by unit
    stage 3   ... and of the weights          before a unit runs: all-gather; then free it

A **unit** is a block of the model; the rest is the root unit, which stays whole from forward to the
end of backward. In stage 3 a rank holds the root and at most two more units: one that computes, and
the next one, which is gathered meanwhile. Gradients are added up in fp32 at least.

Notebook 42. Sources: Rajbhandari et al., ZeRO, arXiv:1910.02054; Zhao et al., PyTorch FSDP,
arXiv:2304.11277; Llama 3 keeps weights after forward: arXiv:2407.21783, section 3.3.2.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from llama_from_scratch.config import nearest
from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.flat import Flat
from llama_from_scratch.parallel.units import Unit, cut, dropped_on_error, gathered, tensors_of


class Sharded:
    """Makes `model` on the ranks of `group` one model: see `placement.DataStrategy`.

    All ranks begin with the weights of the group's first rank. Parameters on the meta device get
    memory for their part only, NaN until `fill` is called. `spans`: which part of its parameter a
    piece of `params` or `frozen` is, as (first element, how many). Padding is in no piece.
    Every rank must run the same units in the same order. What all ranks skip gets a gradient of 0.

    `replicate`: groups like `group` that each have a whole model; their gradients are added up too
    (hybrid sharding). `keeps_after_forward`: stage 3 frees a unit only after its backward, as in
    Llama 3: a third less is sent, and stage 3's weights are whole in between. `param_dtype`: in
    which the model computes; the pieces then have fp32. `prefetches`: gather the next unit while
    one computes. `reduces_once`: stages 2 and 3 exchange gradients only in the last micro-batch.
    Until then each rank keeps whole gradients: 4 bytes per parameter, however many ranks there are.
    `blocks`: the modules that are units, by default the entries of every outermost ModuleList.
    `groups`: by name, the group of a parameter that not all ranks of `group` divide, such as an
    expert. It has a buffer of its own in its unit.
    Raises ValueError for options without effect in this stage.
    """

    def __init__(
        self, model: nn.Module, group: RankGroup, *, stage: int,
        replicate: RankGroup | None = None, keeps_after_forward: bool = False,
        param_dtype: torch.dtype | None = None, prefetches: bool = True,
        reduces_once: bool = False, blocks: Iterable[nn.Module] | None = None,
        groups: Mapping[str, RankGroup] | None = None,
    ) -> None:
        _refuse_options(stage, keeps_after_forward=keeps_after_forward, reduces_once=reduces_once,
                        param_dtype=param_dtype)
        self._stage, self._keeps, self._prefetches = stage, keeps_after_forward, prefetches
        self._group, self._replicate, self._reduces_once = group, replicate, reduces_once
        units = cut(model, group, replicate=replicate, param_dtype=param_dtype, is_kept=stage < 3,
                    blocks=blocks, groups=groups)
        self._root, self._flats = units[0], [flat for unit in units for flat in unit.flats]
        self._flat_of = {name: flat for flat in self._flats for name in flat.shapes}
        pieces = {name: p for flat in self._flats for name, p in flat.pieces.items()}
        self.params = {name: p for name, p in pieces.items() if p.requires_grad}
        self.frozen = {name: p for name, p in pieces.items() if not p.requires_grad}
        self.spans = {name: self._flat_of[name].spans[name] for name in pieces}

        self._micro: _MicroBatch | None = None  # which goes on now
        self._last: Unit | None = None          # which ran before, in this pass
        self._is_ready = False                  # for finish
        self._next: dict[Unit | None, Unit] = {}  # what followed each unit, the last time
        for unit in units:
            self._watch(unit)
        model.register_forward_hook(self._after_pass)

    @contextlib.contextmanager
    def micro_batch(self, *, is_last: bool) -> Iterator[None]:
        """A context around forward and backward of a micro-batch; an error ends the step."""
        if self._is_ready:
            raise RuntimeError("call finish() after the last micro-batch, before another begins")
        self._micro, self._last, self._reducing = _MicroBatch(is_last=is_last), None, None
        with dropped_on_error(self._flats):
            yield
        for unit in [*self._micro.open, self._root]:
            self._complete(unit)
        self._reduce()
        self._free()
        self._micro, self._is_ready = None, is_last

    def finish(self) -> None:
        """After the last backward: every `params[name].grad` is the sum over all ranks."""
        if not self._is_ready:
            raise RuntimeError("finish() comes after a micro_batch(is_last=True), once a step")
        trained = [flat for flat in self._flats if flat.is_trained]
        for flat in trained:
            if self._stage == 1 or flat.has_grad:
                self._reduce(flat)
        self._reduce()
        if self._replicate is not None:
            for pending in [flat.start_replicate(self._replicate) for flat in trained]:
                pending.wait()
        for flat in trained:
            flat.hand_out()
        self._is_ready = False

    def after_step(self) -> None:
        """After the optimizer: the model computes with the new weights."""
        self._refresh([flat for flat in self._flats if flat.is_trained])

    def replicate_over(self, replicate: RankGroup) -> None:
        """From now on adds up gradients over these replicas: some may have failed (`elastic`)."""
        self._replicate = replicate

    def after_fill(self) -> None:
        """After pieces were changed in place, frozen ones too: the model computes with them."""
        self._refresh(self._flats)

    def place(self, name: str) -> tuple[tuple[int, ...], tuple[int, int]]:
        """Returns the shape of a parameter, and the span of it that this rank owns."""
        return tuple(self._flat_of[name].shapes[name]), self.spans[name]

    def fill(self, name: str, weight: Shaped[Tensor, "*shape"]) -> None:
        """Copies in this rank's piece of a whole parameter; every rank is given the same one.

        Raises ValueError for another shape, and for a name that the model does not have.
        """
        if name not in self._flat_of:
            raise ValueError(f"fill needs the name of a parameter of the model; got {name!r}: "
                             f"{nearest(name, self._flat_of)}")
        self._flat_of[name].fill(name, weight)

    def piece(self, name: str, whole: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, " part"]:
        """Returns the elements of a whole tensor that this rank owns, in one row."""
        first, length = self.spans.get(name, (0, 0))
        return whole.flatten()[first : first + length]

    def whole(self, pieces: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Yields each tensor as large as the model's parameter, from tensors like `params`.

        A collective for every unit. Only one unit is gathered at a time.
        """
        yield from gathered(self._flats, pieces)

    def _refresh(self, flats: Iterable[Flat]) -> None:
        """Gathers again what stays whole, after its pieces have changed."""
        self._free()
        kept = [flat for flat in flats if flat.is_kept]
        for flat in kept:
            flat.start_refresh()
        for flat in kept:
            flat.gather()

    # --- what happens in forward and backward -----------------------------------------------------

    def _before_forward(self, unit: Unit, *_: object) -> None:
        if torch.is_grad_enabled() and self._micro is None:
            raise RuntimeError("a forward pass with gradients must be inside of micro_batch(...); "
                               "to evaluate, use torch.no_grad()")
        is_new = not unit.is_whole
        unit.gather()
        if unit is self._root:
            if is_new:
                self._prefetch(self._next.get(None))
            return
        if torch.is_grad_enabled():
            self._next[self._last] = unit
            self._last = unit
        self._prefetch(self._next.get(unit))

    def _after_forward(self, unit: Unit, module: nn.Module, args: object, output: object) -> None:
        needs_grad = [x for x in tensors_of(output) if x.requires_grad]
        if unit is not self._root and not (self._keeps and needs_grad):
            unit.free()
        if needs_grad:
            place = len(self._micro.ran)
            if unit is not self._root:
                self._micro.ran.append(unit)
            before = functools.partial(self._before_backward, self._micro, unit, place)
            for x in needs_grad:
                x.register_hook(before)

    def _before_backward(
        self, micro: "_MicroBatch", unit: Unit, place: int, grad: Tensor
    ) -> None:
        if micro is not self._micro:
            raise RuntimeError("backward must be inside of the same micro_batch(...) as its "
                               "forward pass, because the weights are not there afterward")
        if unit is not self._root:
            for other in micro.open:
                if other is not unit:  # backward does later units first, so this one is complete
                    self._complete(other)
            micro.open = [unit]
        unit.gather()
        if place > 0:
            self._prefetch(micro.ran[place - 1])

    def _after_pass(self, *_: object) -> None:
        if self._micro is None:
            self._free()

    def _free(self) -> None:
        for flat in self._flats:
            flat.free()

    def _take(self, unit: Unit, flat: Flat, name: str, p: nn.Parameter) -> None:
        """Moves a gradient from the model into the buffer, right after backward completed it."""
        flat.add_grad(name, p.grad)
        p.grad = None
        if unit is not self._root and unit not in self._micro.open:
            self._micro.open.append(unit)

    def _complete(self, unit: Unit) -> None:
        """After a unit's backward: its gradients leave, and so do its weights."""
        is_due = self._stage > 1 and (self._micro.is_last or not self._reduces_once)
        for flat in unit.flats:
            if is_due and (flat.has_grad or (unit is self._root and flat.is_trained)):
                self._reduce(flat)
        unit.free()

    def _reduce(self, flat: Flat | None = None) -> None:
        """Waits for the reduction before, so at most two whole gradients exist; begins this one."""
        if self._reducing is not None:
            self._reducing.wait_reduce()
        if flat is not None:
            flat.start_reduce()
        self._reducing = flat

    def _prefetch(self, unit: Unit | None) -> None:
        if self._prefetches and unit is not None:
            unit.start_gather()

    def _watch(self, unit: Unit) -> None:
        for module in unit.modules:
            module.register_forward_pre_hook(functools.partial(self._before_forward, unit))
            module.register_forward_hook(functools.partial(self._after_forward, unit))
        for flat in unit.flats:
            for name, p in flat.params.items() if flat.is_trained else ():
                p.register_post_accumulate_grad_hook(
                    functools.partial(self._take, unit, flat, name))


@dataclasses.dataclass(eq=False)
class _MicroBatch:
    """One pass forward and backward. `ran`: units in the order of forward; `open`: in backward."""

    is_last: bool
    ran: list[Unit] = dataclasses.field(default_factory=list)
    open: list[Unit] = dataclasses.field(default_factory=list)


def _refuse_options(
    stage: int, *, keeps_after_forward: bool, reduces_once: bool, param_dtype: torch.dtype | None
) -> None:
    if stage not in (1, 2, 3):
        raise ValueError(f"stage must be 1, 2 or 3; got {stage!r}. For copies of the whole model, "
                         "use DataParallel")
    for option, is_set, first in (("keeps_after_forward", keeps_after_forward, 3),
                                  ("reduces_once", reduces_once, 2)):
        if is_set and stage < first:
            raise ValueError(f"{option} has an effect from stage {first} on; got stage {stage}. "
                             "Leave it out")
    if param_dtype is not None and not param_dtype.is_floating_point:
        raise ValueError(f"param_dtype must be a floating-point dtype; got {param_dtype}")
