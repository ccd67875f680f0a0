"""AdamW for all parameters in one launch: `train.optimizer.AdamW`, but every number touched once.

A step reads and writes the fp32 weights and both averages, reads the gradient and writes the
model's copy: 28 bytes per bf16 parameter. The gradient's length, the clipping and the decision to
skip a step stay on the device. So the CPU never waits for it, and a CUDA graph can hold the whole
step.

Notebook 36. Sources: as in `train.optimizer`; fp32 weights for a bf16 model: Micikevicius et al.,
Mixed Precision Training, arXiv:1710.03740, section 3.1.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llama_from_scratch.kernels.machinery.launch import launch, program
from llama_from_scratch.kernels.machinery.tensors import n_processors, require_cuda
from llama_from_scratch.train.optimizer import Group, refuse_other_state

THREADS = 256
CHUNK = 16384           # elements of one tensor that a block handles at a time, as in adamw.cu
BLOCKS_PER_PROCESSOR = 8
N_FIELDS = 6            # numbers in a row of the table of tensors, and in the plan of a step
NORM = 0                # the index of the gradient's length in the plan


class FusedAdamW:
    """Replaces `train.optimizer.AdamW`, and also clips.

    A step is two launches, the plan and the update of all parameters, or three with the norm.

    Parameters in bf16 or fp16 have fp32 weights in addition (`masters`). The model's own parameters
    are rounded copies of these, written in the same pass. All parameters share one dtype and one
    device.
    """

    def __init__(
        self, groups: Sequence[Group], *, beta1: float = 0.9, beta2: float = 0.95,
        eps: float = 1e-8, emulate: bool = False,
    ) -> None:
        self.groups, self.beta1, self.beta2, self.eps = tuple(groups), beta1, beta2, eps
        self.params = {name: p for group in groups for name, p in group.params.items()}
        _check(self.groups, self.params)
        first = next(iter(self.params.values()))
        require_cuda("FusedAdamW", first, emulate=emulate)
        self._program = program("adamw", first.dtype)
        device, accum = first.device, self._program.accum
        self.means = {name: torch.zeros_like(p, dtype=accum) for name, p in self.params.items()}
        self.squares = {name: torch.zeros_like(p, dtype=accum) for name, p in self.params.items()}
        copied = {} if first.dtype == accum else self.params
        self.masters = {name: p.detach().to(accum) for name, p in copied.items()}
        self.n_steps = torch.zeros(1, dtype=torch.int64, device=device)
        self._lr = torch.zeros(1, dtype=torch.float64, device=device)
        self._plan = torch.zeros(N_FIELDS, dtype=accum, device=device)
        decays = [group.weight_decay for group in groups for _ in group.params]
        self._decays = torch.tensor(decays, dtype=accum, device=device)
        chunks = _chunks([p.numel() for p in self.params.values()])
        self._chunk_tensor, self._chunk_start = (table.to(device) for table in chunks)
        self._squares = torch.zeros(len(self._chunk_tensor), dtype=accum, device=device)
        self._table, self._addresses = torch.zeros(0, dtype=torch.int64, device=device), []

    @torch.no_grad()
    def step(self, *, lr: float, max_norm: float | None = None) -> Float[Tensor, ""] | None:
        """Makes one step against the gradients; every parameter must have a gradient.

        `max_norm`: the step treats longer gradients (all of them as one vector) as scaled down to
        this length. If the length is not finite, the step is skipped: nothing changes, not even the
        number of steps. Returns the length before scaling, on the device; reading it waits for the
        GPU. Without `max_norm`, the length is not computed and None is returned.
        """
        self._find_gradients()
        self._lr.fill_(lr)
        grid = min(len(self._chunk_tensor), n_processors(self._lr.device) * BLOCKS_PER_PROCESSOR)
        work = [self._table, self._decays, self._chunk_tensor, self._chunk_start,
                len(self._chunk_tensor)]
        if max_norm is not None:
            launch(self._program, "gradient_squares", [*work, self._squares], grid=grid,
                   block=THREADS)
        n_measured = 0 if max_norm is None else len(self._chunk_tensor)
        limit = float("inf") if max_norm is None else max_norm
        launch(self._program, "make_plan",
               [self._squares, n_measured, limit, self._lr, self.beta1, self.beta2, self.eps,
                self.n_steps, self._plan],
               grid=1, block=THREADS)
        launch(self._program, "adamw", [*work, self._plan, self.beta1, self.beta2], grid=grid,
               block=THREADS)
        return None if max_norm is None else self._plan[NORM].clone()

    def _find_gradients(self) -> None:
        """Copies the addresses to the device again if any changed: gradients may be new tensors."""
        if missing := [name for name, p in self.params.items() if p.grad is None]:
            raise ValueError("every parameter of a group needs a gradient; "
                             f"{', '.join(missing[:4])} got none. Call backward first, or leave "
                             "frozen parameters out of the groups")
        for p in self.params.values():
            p.grad = p.grad.contiguous()
        addresses = [row for name, p in self.params.items() for row in self._row(name, p)]
        if addresses != self._addresses:
            table = torch.tensor(addresses)
            table = table.pin_memory() if self._lr.is_cuda else table
            self._table = table.to(self._lr.device, non_blocking=True)
            self._addresses = addresses

    def _row(self, name: str, p: nn.Parameter) -> list[int]:
        master = self.masters.get(name)
        weights, copy = (p.data_ptr(), 0) if master is None else (master.data_ptr(), p.data_ptr())
        return [weights, self.means[name].data_ptr(), self.squares[name].data_ptr(),
                p.grad.data_ptr(), copy, p.numel()]

    def zero_grad(self) -> None:
        """Removes all gradients."""
        for p in self.params.values():
            p.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """Returns what `train.optimizer.AdamW.state_dict` does, and `master.*` for bf16 and fp16.

        In fp32, the plain optimizer can load it.
        """
        state = {f"mean.{name}": mean for name, mean in self.means.items()}
        state |= {f"square.{name}": square for name, square in self.squares.items()}
        state |= {f"master.{name}": master for name, master in self.masters.items()}
        return state | {"n_steps": self.n_steps[0].cpu()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Loads what `state_dict` returned. Raises ValueError if its parameters are others."""
        own = self.state_dict()
        refuse_other_state(state, own=own)
        for name, tensor in own.items():
            if name != "n_steps":
                tensor.copy_(state[name])
        self.n_steps.fill_(int(state["n_steps"]))


def _check(groups: Sequence[Group], params: Mapping[str, nn.Parameter]) -> None:
    names = [name for group in groups for name in group.params]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"AdamW needs at least one parameter, and each in one group; got {names}")
    kinds = sorted({f"{p.dtype} on {p.device}" for p in params.values()})
    if len(kinds) > 1:
        raise ValueError("FusedAdamW steps all parameters in one launch, so they must share dtype "
                         f"and device; got {kinds}. Convert the model with .to(...), or make one "
                         "optimizer for each kind")
    if gaps := [name for name, p in params.items() if not p.is_contiguous()]:
        raise ValueError("FusedAdamW needs parameters without gaps in memory; "
                         f"{', '.join(gaps[:4])} have gaps. Replace them by p.contiguous()")


def _chunks(sizes: Sequence[int]) -> tuple[Int[Tensor, "chunks"], Int[Tensor, "chunks"]]:
    """Returns, for every chunk, its tensor's number (int32) and its first element there (int64)."""
    counts = torch.tensor([-(-size // CHUNK) for size in sizes])
    tensor = torch.repeat_interleave(torch.arange(len(sizes)), counts)
    first_chunk = torch.tensor([0, *accumulate(counts.tolist())])[tensor]
    return tensor.int(), (torch.arange(len(tensor)) - first_chunk) * CHUNK
