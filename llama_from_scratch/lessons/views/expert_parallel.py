"""Shows what travels when ranks divide experts: how much, what a capacity drops, and who waits.

Used by chapter 46.
"""

import functools
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.look import BLUE, ORANGE
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore
from llama_from_scratch.parallel.expert_parallel import ExpertTraffic, within

RANKS = {f"{n}": n for n in (2, 4, 8, 16)}
EXPERTS = {f"{n}": n for n in (16, 32, 64, 128)}
CAPACITIES = {"none": 0.0} | {f"{n}": n for n in (1.0, 1.25, 1.5, 2.0, 4.0)}
SKEWS = {"even": 0.0, "a little uneven": 0.5, "uneven": 1.0, "very uneven": 1.5}
"""By how much: expert number k, the most liked first, is chosen with a weight of 1 / k^skew."""
N_TOKENS = 1024


@functools.lru_cache(maxsize=256)
def drawn_traffic(*, n_ranks: int, n_experts: int, capacity: float, skew: float) -> ExpertTraffic:
    """Returns where the tokens of a random router go, 1,024 on each rank, each to one expert.

    Which experts are liked is random, too; every call draws the same. `capacity`: 0 for none.
    """
    draw = torch.Generator().manual_seed(0)
    weight_E = torch.arange(1, n_experts + 1).double() ** -skew
    weight_E = weight_E[torch.randperm(n_experts, generator=draw)]
    wanted = torch.stack([torch.bincount(
        torch.multinomial(weight_E, N_TOKENS, replacement=True, generator=draw),
        minlength=n_experts) for _ in range(n_ranks)])
    return ExpertTraffic(wanted=wanted, sent=within(wanted, capacity or None))


def expert_traffic(*, start: Mapping[str, Any] | None = None) -> Explorer:
    """Returns a widget with ranks, experts, capacity and skew of the routing.

    `start`: other first values, such as {"n_ranks": 16}.
    """
    return explore(
        expert_traffic_frame, title="Rows that travel, rows that are dropped, ranks that wait",
        controls={"n_ranks": RANKS, "n_experts": EXPERTS, "capacity": CAPACITIES, "skew": SKEWS},
        labels={"n_ranks": "ranks (ep)", "n_experts": "experts", "skew": "the router is"},
        start={"n_ranks": 8, "n_experts": 16, "skew": 1.0} | dict(start or {}))


def expert_traffic_frame(
    n_ranks: int, n_experts: int, capacity: float, skew: float
) -> Figure:
    """Draws the rows from each rank to each, and what each computes and does not.

    The time of a rank is taken to be proportional to its rows.
    """
    traffic = drawn_traffic(n_ranks=n_ranks, n_experts=n_experts, capacity=capacity, skew=skew)
    rows, n = traffic.rows, n_ranks * N_TOKENS
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), width_ratios=(1, 1.25))
    shown = left.imshow(rows.numpy(), cmap="YlOrBr", vmin=0)
    left.set(xlabel="to rank", ylabel="from rank", title="Rows from rank to rank")
    left.set_xticks(range(0, n_ranks, max(n_ranks // 8, 1)))
    left.set_yticks(range(0, n_ranks, max(n_ranks // 8, 1)))
    fig.colorbar(shown, ax=left, fraction=0.046)
    computed = rows.sum(0)
    wanted = traffic.wanted.view(n_ranks, n_ranks, -1).sum((0, 2))
    right.bar(range(n_ranks), computed.tolist(), color=BLUE, label="computed")
    right.bar(range(n_ranks), (wanted - computed).tolist(), bottom=computed.tolist(),
              color="white", edgecolor=ORANGE, hatch="////", label="dropped")
    right.axhline(N_TOKENS, color="0.35", ls=":", label="even share")
    right.set(xlabel="rank", title="Rows of each rank's experts", ylim=(0, 1.3 * int(wanted.max())))
    right.set_xticks(range(0, n_ranks, max(n_ranks // 8, 1)))
    right.legend(ncols=3, loc="upper center", fontsize=10)
    away, slowest = int(rows.sum() - rows.diag().sum()), int(computed.max())
    idle = 1 - float(computed.sum()) / (n_ranks * slowest)
    words = "nothing is dropped" if not traffic.n_dropped else (
        f"{traffic.n_dropped / n:.1%} of the rows are dropped")
    fig.set_label(
        f"{n:,} rows on {n_ranks} ranks: {away / n:.1%} of them travel, and {words}. The slowest "
        f"rank computes {slowest / N_TOKENS:.2f} times the even share, and the ranks wait "
        f"{idle:.0%} of that time on average.")
    return fig
