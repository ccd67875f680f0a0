"""What each stage of sharding costs: bytes that a rank holds, and bytes that it sends.

With N parameters on n ranks, a model that computes in bfloat16 and is trained by AdamW in fp32:

    stage    weights, bf16   gradients, fp32   master, fp32   averages, fp32
    0        2 N             4 N               4 N            8 N               18 N
    1        2 N             4 N               4 N / n        8 N / n
    2        2 N             4 N / n           4 N / n        8 N / n
    3                        4 N / n           4 N / n        8 N / n           16 N / n

In stage 3 the master weights are all that is kept. What is gathered for a moment comes on top: the
root unit and two more, with their gradients. In fp32 the weights are their own master, 4 N, and a
rank holds 16 N, or 16 N / n. All of it is counted here, padding too.

Notebook 42. Source: Rajbhandari et al., ZeRO, arXiv:1910.02054, sections 5 and 7.
"""

from collections.abc import Mapping

from llama_from_scratch.config import LlamaConfig, record
from llama_from_scratch.model.costs import param_shapes

STAGES = (0, 1, 2, 3)
ROOT = "root"


@record
class Held:
    """The bytes on one rank. `gathered`: the most that stages 2 and 3 have for a moment."""

    weights: int
    gradients: int
    master: int
    averages: int
    gathered: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.master + self.averages + self.gathered


def unit_sizes(config: LlamaConfig) -> dict[str, int]:
    """Returns the number of parameters of the root and of each block, as `units` divides them."""
    found = {ROOT: 0}
    for name, shape in param_shapes(config).items():
        unit, n = _unit_of(name), 1
        for length in shape:
            n *= length
        found[unit] = found.get(unit, 0) + n
    return found


def held(
    sizes: Mapping[str, int], *, n_ranks: int, stage: int, is_bf16: bool = True
) -> Held:
    """Returns what a rank holds, with AdamW. `sizes`: as `unit_sizes` returns them.

    Stage 0 is data parallel: every rank holds all of it.
    """
    _refuse_stage(stage)
    width = 2 if is_bf16 else 4
    sizes = padded(sizes, n_ranks=n_ranks if stage else 1)
    n, n_own = sum(sizes.values()), sum(sizes.values()) // (n_ranks if stage else 1)
    moving = sizes[ROOT] + 2 * max((n for unit, n in sizes.items() if unit != ROOT), default=0)
    return Held(
        weights=width * n if stage < 3 else 0,
        gradients=4 * (n if stage < 2 else n_own),
        master=4 * n_own if is_bf16 or stage == 3 else 0,
        averages=8 * n_own,
        gathered=(0, 0, 4 * moving, (4 + width) * moving)[stage])


def sent(
    sizes: Mapping[str, int], *, n_ranks: int, stage: int, n_micro: int = 1, is_bf16: bool = True,
    keeps_after_forward: bool = False, reduces_once: bool = False,
) -> dict[str, int]:
    """Returns the bytes that a rank sends in one step, by operation.

    Stage 0 adds up the whole gradients. The other arguments are as in `Sharded`.
    """
    _refuse_stage(stage)
    sizes = padded(sizes, n_ranks=n_ranks)
    n, width = sum(sizes.values()), 2 if is_bf16 else 4
    if stage == 0:
        return {"all_reduce": 2 * 4 * n * (n_ranks - 1) // n_ranks}
    n_reduced = n if stage == 1 or reduces_once else n * n_micro
    n_again = 0 if keeps_after_forward else n - sizes[ROOT]  # for backward
    n_gathered = n if stage < 3 else (n + n_again) * n_micro
    return {"all_gather": width * n_gathered * (n_ranks - 1) // n_ranks,
            "reduce_scatter": 4 * n_reduced * (n_ranks - 1) // n_ranks}


def padded(sizes: Mapping[str, int], *, n_ranks: int) -> dict[str, int]:
    """Returns each size rounded up to a multiple of the number of ranks."""
    return {unit: -(-n // n_ranks) * n_ranks for unit, n in sizes.items()}


def _unit_of(name: str) -> str:
    """Returns "layers.3" for "layers.3.attention.wq.weight", and "root" for "norm.weight"."""
    parts = name.split(".")
    number = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
    return ROOT if number is None else ".".join(parts[:number + 1])


def _refuse_stage(stage: int) -> None:
    if stage not in STAGES:
        raise ValueError(f"the stage must be one of 0, 1, 2, 3; got {stage!r}. 0 is data parallel")
