"""A group of ranks that exchange tensors, and nothing happens that its log does not show.

A **rank** is one process of several that run the same program. Each has its own memory, so ranks
share only what they send. A **collective** is an exchange that all ranks of a group take part in,
each with the same call, in the same order. PyTorch's process groups carry the bytes: gloo between
CPUs, NCCL between GPUs. `collectives` builds the same operations from `send` and `receive`.

Notebook 40.
"""

import math
import pickle
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

from llama_from_scratch.parallel.agreement import Agreement
from llama_from_scratch.parallel.comm_log import Call, CommLog

# PyTorch 2.13 renamed these two, and warns about the old names.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor

_NOTIFIES = ("all_reduce", "all_gather", "broadcast")
"""Operations of which gloo tells when they are complete, also while the rank computes. (NCCL tells
when they are in the GPU's queue, which is another moment.)"""
REDUCTIONS = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX, "min": dist.ReduceOp.MIN}


class Pending:
    """A collective that has begun. The tensor may be read, or changed, only after `wait`."""

    def __init__(
        self, group: "RankGroup", result: Tensor, work: dist.Work | None, about: dict
    ) -> None:
        self._group, self._result, self._work, self._about = group, result, work, about
        self._arrived_s: list[float] = []
        if work is not None and about["op"] in _NOTIFIES and group.device.type == "cpu":
            work.get_future().add_done_callback(
                lambda _: self._arrived_s.append(time.perf_counter()))

    def wait(self) -> Tensor:
        """Returns the result when it is there."""
        return self._finish(waited_s=time.perf_counter())

    @property
    def is_complete(self) -> bool:
        """Whether `wait` would return at once. On a GPU: whether its stream has done it."""
        return self._work is None or self._work.is_completed()

    def at_once(self) -> Tensor:
        """Returns the result as `wait` does, for a caller that waits since the call began.

        To hand the tensor over takes time, too, and nothing was computed meanwhile.
        """
        return self._finish(waited_s=self._about.get("began_s", 0.0))

    def _finish(self, *, waited_s: float) -> Tensor:
        if self._about:
            if self._work is not None:
                self._work.wait()
            ended_s = self._arrived_s[0] if self._arrived_s else time.perf_counter()
            self._group.log.calls.append(
                Call(**self._about, waited_s=waited_s, ended_s=ended_s))
            self._about = {}
        return self._result


class RankGroup:
    """The ranks that communicate with each other, seen from one of them.

    `ranks`: their numbers in the whole program. `rank`: this one's number within the group, from 0.
    A group of one rank sends nothing and logs nothing. Every method is a collective: all ranks of
    the group call it, with tensors of equal shape and dtype. `note` is for the log: what it is.
    Gradients do not flow through it: see `collectives`. Raises ValueError if x cannot be used.
    """

    def __init__(
        self, ranks: Sequence[int], *, own: int, name: str, log: CommLog,
        process_group: dist.ProcessGroup | None, device: torch.device,
        agreement: Agreement | None = None,
    ) -> None:
        self.ranks, self.name, self.log, self.device = tuple(ranks), name, log, device
        self.rank, self.size = self.ranks.index(own), len(self.ranks)
        self.process_group, self.agreement = process_group, agreement

    def __repr__(self) -> str:
        return f"RankGroup({self.name!r}, rank {self.rank} of {self.size})"

    # --- collectives ----------------------------------------------------------------------------

    def all_reduce(
        self, x: Shaped[Tensor, "*any"], *, op: str = "sum", note: str = ""
    ) -> Shaped[Tensor, "*any"]:
        """Replaces x on every rank by the sum (or "max", "min") over the ranks; returns it."""
        return self.start_all_reduce(x, op=op, note=note).at_once()

    def start_all_reduce(
        self, x: Shaped[Tensor, "*any"], *, op: str = "sum", note: str = ""
    ) -> Pending:
        """Begins `all_reduce`; compute something else, then `wait`."""
        if op not in REDUCTIONS:
            raise ValueError(f"all_reduce takes op={', '.join(REDUCTIONS)}; got {op!r}")
        self._refuse_strided("all_reduce", x)
        return self._start("all_reduce", x, x, note, lambda: dist.all_reduce(
            x, op=REDUCTIONS[op], group=self.process_group, async_op=True), how=f" ({op})")

    def reduce_scatter(
        self, x: Shaped[Tensor, "whole *rest"], *, note: str = ""
    ) -> Shaped[Tensor, "part *rest"]:
        """Returns this rank's part of the sum over the ranks; parts are along the first axis.

        The size of the group must divide the length of that axis.
        """
        return self.start_reduce_scatter(x, note=note).at_once()

    def start_reduce_scatter(
        self, x: Shaped[Tensor, "whole *rest"], *, out: Tensor | None = None, note: str = ""
    ) -> Pending:
        """Begins `reduce_scatter`, into `out` if it is given."""
        self._refuse_uneven("reduce_scatter", x)
        out = self._out("reduce_scatter", x, out, length=x.shape[0] // self.size)
        if self.size == 1:
            return Pending(self, out.copy_(x), None, {})
        return self._start("reduce_scatter", x, out, note, lambda: _reduce_scatter(
            out, x.contiguous(), group=self.process_group, async_op=True))

    def all_gather(
        self, x: Shaped[Tensor, "part *rest"], *, note: str = ""
    ) -> Shaped[Tensor, "whole *rest"]:
        """Returns the parts of all ranks, one after the other along the first axis."""
        return self.start_all_gather(x, note=note).at_once()

    def start_all_gather(
        self, x: Shaped[Tensor, "part *rest"], *, out: Tensor | None = None, note: str = ""
    ) -> Pending:
        """Begins `all_gather`, into `out` if it is given."""
        self._refuse_scalar("all_gather", x)
        out = self._out("all_gather", x, out, length=x.shape[0] * self.size)
        if self.size == 1:
            return Pending(self, out.copy_(x), None, {})
        return self._start("all_gather", out, out, note, lambda: _all_gather(
            out, x.contiguous(), group=self.process_group, async_op=True))

    def all_to_all(
        self, x: Shaped[Tensor, "rows *rest"], *, sent: Sequence[int] | None = None,
        received: Sequence[int] | None = None, note: str = "",
    ) -> Shaped[Tensor, "others *rest"]:
        """Returns what every rank has for this one: rows of x go to rank 0, 1, 2, ... in order.

        `sent`, `received`: how many rows go to and come from each rank; by default all alike.
        """
        self._refuse_scalar("all_to_all", x)
        if (sent is None) != (received is None):
            raise ValueError("all_to_all needs `sent` and `received`, or neither; got only "
                             f"{'received' if sent is None else 'sent'}")
        if sent is None:
            self._refuse_uneven("all_to_all", x)
        elif (sum(sent) != len(x) or not len(sent) == len(received) == self.size
              or min(*sent, *received) < 0):
            raise ValueError(f"all_to_all sends all {len(x)} rows, and names a number for each of "
                             f"{self.size} ranks; got sent={list(sent)}, received="
                             f"{list(received)}")
        if self.size == 1:
            return x.clone()
        out = x.new_empty(len(x) if received is None else sum(received), *x.shape[1:])
        row_bytes = math.prod(x.shape[1:]) * x.element_size()
        uneven = None if sent is None else (len(x) - sent[self.rank]) * row_bytes
        return self._start("all_to_all", x, out, note, lambda: dist.all_to_all_single(
            out, x.contiguous(), received and list(received), sent and list(sent),
            group=self.process_group, async_op=True), uneven_bytes=uneven).at_once()

    def broadcast(
        self, x: Shaped[Tensor, "*any"], *, source: int = 0, note: str = ""
    ) -> Shaped[Tensor, "*any"]:
        """Replaces x on every rank by the x of rank `source` of the group; returns it."""
        self._refuse_stranger("broadcast", source)
        self._refuse_strided("broadcast", x)
        return self._start("broadcast", x, x, note, lambda: dist.broadcast(
            x, src=self.ranks[source], group=self.process_group, async_op=True),
            how=f" (from {source})").at_once()

    def barrier(self) -> None:
        """Waits until every rank of the group has called it."""
        x = torch.zeros(1, device=self.device)
        self._start("barrier", x, x, "", lambda: dist.all_reduce(
            x, group=self.process_group, async_op=True)).at_once()
        x.item()  # a GPU only queues the collective; its result is there when the others have come

    def gather_objects(self, value: Any) -> list[Any]:
        """Returns the values of all ranks. It pickles them, so it is for small ones."""
        packed = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
        lengths = self.all_gather(torch.tensor([len(packed)], device=self.device), note="lengths")
        padded = torch.zeros(lengths.max(), dtype=torch.uint8, device=self.device)
        padded[: len(packed)] = packed
        rows = self.all_gather(padded, note="objects").view(self.size, -1).cpu()
        return [pickle.loads(row[:length].numpy().tobytes())
                for row, length in zip(rows, lengths.tolist(), strict=True)]

    # --- from one rank to another ---------------------------------------------------------------

    def send(self, x: Shaped[Tensor, "*any"], *, to: int, note: str = "") -> None:
        """Sends x to rank `to` of the group, which must `receive` it."""
        self.start_send(x, to=to, note=note).at_once()

    def start_send(self, x: Shaped[Tensor, "*any"], *, to: int, note: str = "") -> Pending:
        """Begins `send`. x must not change before `wait`."""
        self._refuse_stranger("send", to, is_other=True)
        if self.agreement is not None:
            self.agreement.check_send(self, _about(x), to=to)
        x = x.contiguous()
        return self._begin("send", x, x, note, lambda: dist.isend(
            x, dst=self.ranks[to], group=self.process_group))

    def receive(
        self, x: Shaped[Tensor, "*any"], *, source: int, note: str = ""
    ) -> Shaped[Tensor, "*any"]:
        """Overwrites x with the tensor that rank `source` of the group sends; returns it."""
        return self.start_receive(x, source=source, note=note).at_once()

    def start_receive(
        self, x: Shaped[Tensor, "*any"], *, source: int, note: str = ""
    ) -> Pending:
        """Begins `receive`."""
        self._refuse_stranger("receive", source, is_other=True)
        self._refuse_strided("receive", x)
        if self.agreement is not None:
            self.agreement.check_receive(self, _about(x), source=source)
        return self._begin("receive", x, x, note, lambda: dist.irecv(
            x, src=self.ranks[source], group=self.process_group))

    # --- inside ---------------------------------------------------------------------------------

    def _start(
        self, op: str, whole: Tensor, result: Tensor, note: str, begin: Callable[[], dist.Work], *,
        how: str = "", uneven_bytes: int | None = None,
    ) -> Pending:
        """Begins a collective. `whole`: as in `SHARE_SENT`. `how`: what the ranks must agree on."""
        if self.size == 1:
            return Pending(self, result, None, {})
        if self.agreement is not None:
            about = _about(whole) if uneven_bytes is None else f"rows of {_about(whole, skip=1)}"
            self.agreement.check(self, f"{op}{how} of {about}")
        return self._begin(op, whole, result, note, begin, uneven_bytes=uneven_bytes)

    def _begin(
        self, op: str, whole: Tensor, result: Tensor, note: str, begin: Callable[[], dist.Work], *,
        uneven_bytes: int | None = None,
    ) -> Pending:
        about = dict(op=op, group=self.name, size=self.size, note=note, n_bytes=whole.nbytes,
                     uneven_bytes=uneven_bytes, began_s=time.perf_counter())
        return Pending(self, result, begin(), about)

    def _out(self, op: str, x: Tensor, out: Tensor | None, *, length: int) -> Tensor:
        """Returns the tensor for the result, a new one if none is given."""
        shape = (length, *x.shape[1:])
        if out is None:
            return x.new_empty(shape)
        if tuple(out.shape) != shape or out.dtype != x.dtype:
            raise ValueError(f"{op} of {_about(x)} with {self.size} ranks needs `out` of {shape} "
                             f"{_about(x).split()[-1]}; got {_about(out)}")
        self._refuse_strided(op, out)
        return out

    def _refuse_uneven(self, op: str, x: Tensor) -> None:
        self._refuse_scalar(op, x)
        if len(x) % self.size:
            raise ValueError(f"{op} divides the first axis evenly among the ranks; got a length of "
                             f"{len(x)} for {self.size} ranks. Pad it to a multiple of "
                             f"{self.size}")

    def _refuse_scalar(self, op: str, x: Tensor) -> None:
        if x.ndim == 0:
            raise ValueError(f"{op} needs a tensor with a first axis; got one without axes. "
                             "Pass x[None]")

    def _refuse_strided(self, op: str, x: Tensor) -> None:
        if not x.is_contiguous():
            raise ValueError(f"{op} overwrites a tensor whose elements are contiguous in memory; "
                             f"got strides {x.stride()} for shape {tuple(x.shape)}. Pass "
                             "x.contiguous()")

    def _refuse_stranger(self, op: str, rank: int, *, is_other: bool = False) -> None:
        if not 0 <= rank < self.size or (is_other and rank == self.rank):
            raise ValueError(f"{op} names {'another' if is_other else 'a'} rank of group "
                             f"{self.name!r}, 0 to {self.size - 1}; got {rank}"
                             + (" on that rank itself" if rank == self.rank else ""))


def _about(x: Tensor, *, skip: int = 0) -> str:
    return f"{tuple(x.shape[skip:])} {str(x.dtype).removeprefix('torch.')}"
