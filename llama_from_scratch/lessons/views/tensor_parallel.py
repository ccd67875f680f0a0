"""Shows what tensor parallel costs and saves: bytes, time and memory, by model, ranks and tokens.

Used by chapter 43. Sources: The Llama 3 herd of models, arXiv:2407.21783, section 3.3 (400 TFLOP/s
reached on each GPU, NVLink within 8 GPUs, 400 Gb/s between machines); Korthikanti et al.,
arXiv:2205.05198, section 4 (activations).
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from llama_from_scratch import family
from llama_from_scratch.config import LlamaConfig, record
from llama_from_scratch.lessons.figures.look import BLUE, GREEN, ORANGE, RED
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore
from llama_from_scratch.parallel.comm_log import SHARE_SENT

MODELS = {name.replace("llama-", "Llama ").replace("-", " ").upper().replace("LLAMA", "Llama"): name
          for name in ("llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b")}
RANKS = {f"{n}": n for n in (1, 2, 4, 8, 16, 32)}
TOKENS = {f"{n:,}": n for n in (1024, 8192, 131072)}
LINKS = {"within a machine (NVLink, 450 GB/s)": 450e9, "between machines (400 Gb/s)": 50e9}
FLOPS_PER_S = 400e12
BF16 = 2


@record
class LayerCosts:
    """What one rank holds, computes and sends in one layer, for one micro-batch.

    `kept_bytes`: of activations, until backward has used them.
    """

    weight_bytes: Fraction
    kept_bytes: Fraction
    sent_bytes: Fraction
    time_s: float


def layer_costs(
    config: LlamaConfig, *, n_ranks: int, n_tokens: int, is_sequence_parallel: bool
) -> LayerCosts:
    """Returns the costs of a layer in bf16, forward and backward.

    Kept per token: the stream and its normed copy twice (4 D), which only sequence parallel
    divides; queries, keys, values and the result of attention; gate, up and their product.
    """
    d, kv = config.dim, 2 * config.n_kv_heads * config.head_dim
    q, ffn = config.n_heads * config.head_dim, config.ffn_dim
    copies = max(Fraction(n_ranks, config.n_kv_heads), Fraction(1))
    n_heads = Fraction(2 * q * d + kv * d * copies, n_ranks)
    n_weights = n_heads + Fraction(3 * d * ffn, n_ranks) + 2 * d
    n_divided = Fraction(2 * q + kv * copies + 3 * ffn, n_ranks)
    n_stream = Fraction(4 * d, n_ranks if is_sequence_parallel else 1)
    n_sums = 4 * n_tokens * d * BF16
    attention = 6 * q * n_tokens  # causal, forward and backward, per token
    n_flops = n_tokens * (6 * (n_weights - 2 * d) + Fraction(attention, n_ranks))
    return LayerCosts(
        weight_bytes=n_weights * BF16, kept_bytes=n_tokens * BF16 * (n_divided + n_stream),
        sent_bytes=n_sums * SHARE_SENT["all_reduce"](n_ranks), time_s=float(n_flops) / FLOPS_PER_S)


def tensor_parallel_costs(*, start: Mapping[str, Any] | None = None) -> Explorer:
    """Returns a widget with model, ranks, tokens and sequence parallel, which shows the costs.

    `start`: other first values, such as {"n_ranks": 16}.
    """
    return explore(
        tensor_parallel_costs_frame, title="One layer of a model that is cut",
        controls={"model": MODELS, "n_ranks": RANKS, "n_tokens": TOKENS,
                  "is_sequence_parallel": False},
        labels={"n_ranks": "ranks (tp)", "n_tokens": "tokens in a micro-batch",
                "is_sequence_parallel": "sequence parallel"},
        start={"model": "llama-3.1-405b", "n_ranks": 8, "n_tokens": 8192} | dict(start or {}))


def tensor_parallel_costs_frame(
    model: str, n_ranks: int, n_tokens: int, is_sequence_parallel: bool
) -> Figure:
    """Draws a rank's memory for a layer, and its time: computing, and sending over two links."""
    config = family.config(model)
    found = layer_costs(config, n_ranks=n_ranks, n_tokens=n_tokens,
                        is_sequence_parallel=is_sequence_parallel)
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.3), width_ratios=(1, 1.3))
    held = {"weights": float(found.weight_bytes) / 1e9,
            "activations": float(found.kept_bytes) / 1e9}
    left.bar(list(held), list(held.values()), color=(BLUE, GREEN), width=0.6)
    for name, size in held.items():
        left.text(name, size, f"{size:.3g}", ha="center", va="bottom", fontsize=11)
    left.set(ylim=(0, 1.2 * max(held.values())), ylabel="GB", title="A rank holds of a layer")
    times = {"computes": found.time_s} | {
        name.split(" (")[0]: float(found.sent_bytes) / speed for name, speed in LINKS.items()}
    rows = list(times)
    right.barh(rows, [1e3 * time_s for time_s in times.values()], color=(BLUE, ORANGE, RED))
    for row, time_s in times.items():
        right.text(1e3 * time_s, row, f" {1e3 * time_s:.3g}", va="center", fontsize=11)
    right.set_yticks(range(3), ["computes", "sends within\na machine", "sends between\nmachines"])
    right.invert_yaxis()
    right.set(xlim=(0, 1.2e3 * max(times.values())), xlabel="ms, forward and backward",
              title="Time for a layer")
    right.locator_params(axis="x", nbins=5)
    shares = [100 * float(found.sent_bytes) / speed / found.time_s for speed in LINKS.values()]
    beyond = "" if n_ranks <= 8 else " (A machine has 8 GPUs, so these ranks are not in one.)"
    fig.set_label(
        f"{n_ranks} ranks: the weights of a layer take {held['weights']:.3g} GB on each, the "
        f"activations of {n_tokens:,} tokens {held['activations']:.3g} GB. A rank sends "
        f"{float(found.sent_bytes) / 1e9:.3g} GB, which takes {shares[0]:.0f} % of the computing "
        f"time within a machine and {shares[1]:.0f} % between machines.{beyond}")
    return fig
