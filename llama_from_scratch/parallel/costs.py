"""What a strategy costs: the bytes that a rank sends in one step, and those that it holds.

The numbers are exact. They follow from a config, a mesh and a few choices, without any rank; the
log of a real step shows the same bytes. A ring sends 2 (n - 1) / n of a tensor for an all-reduce
and half of that for an all-gather or a reduce-scatter (`comm_log.SHARE_SENT`). What travels to
experts depends on the tokens. `exchanges` counts it for experts that are chosen equally often, and
`traffic_bytes` for what a pass has counted.

Notebooks 41, 42, 43 and 46. Sources: Rajbhandari et al., ZeRO, arXiv:1910.02054, sections 5 and 7;
Korthikanti et al., arXiv:2205.05198, section 4.2.2.
"""

from collections.abc import Iterator
from fractions import Fraction

import torch

from llama_from_scratch.config import Experts, LlamaConfig, record
from llama_from_scratch.parallel import sizes
from llama_from_scratch.parallel.exchange import Exchange
from llama_from_scratch.parallel.expert_parallel import ExpertTraffic
from llama_from_scratch.parallel.mesh import Mesh


@record
class Plan:
    """A model on a mesh. See `shard` and `Sharded` for the fields up to `is_sequence_parallel`.

    `weight_dtype`: of the weights that the optimizer changes. `compute_dtype`: `param_dtype`, or
    None for the same. `is_bf16`: matrix products under autocast. `n_rows`: the rows of a
    micro-batch on one rank, each of `seq_len` tokens. `n_micro_batches`: in one step.
    """

    config: LlamaConfig
    mesh: Mesh
    stage: int = 0
    keeps_after_forward: bool = False
    reduces_once: bool = False
    is_sequence_parallel: bool = False
    weight_dtype: torch.dtype = torch.float32
    compute_dtype: torch.dtype | None = None
    is_bf16: bool = False
    n_rows: int = 1
    seq_len: int = 1
    n_micro_batches: int = 1

    def __post_init__(self) -> None:
        if type(self.config) is not LlamaConfig:
            raise ValueError("the costs of a plan are known for a LlamaConfig; got a "
                             f"{type(self.config).__name__}")
        if self.mesh.cp > 1 or self.mesh.pp > 1:
            raise ValueError("the costs of a plan are known for the axes dp, replicate, tp and ep; "
                             f"got the mesh {self.mesh}. Choose cp=1 and pp=1")

    @property
    def stream_dtype(self) -> torch.dtype:
        return self.weight_dtype if self.compute_dtype is None else self.compute_dtype

    @property
    def sum_dtype(self) -> torch.dtype:
        """The dtype in which gradients are added up."""
        return torch.promote_types(self.weight_dtype, torch.float32)


def sent_bytes(plan: Plan) -> dict[tuple[str, str], Fraction]:
    """Returns what a rank sends in a step, by (group, operation).

    This is what its log shows, without single numbers such as the loss or the gradient's length.
    """
    found: dict[tuple[str, str], Fraction] = {}
    for each in exchanges(plan):
        key = each.group, each.op
        found[key] = found.get(key, Fraction(0)) + each.sent_bytes
    return found


def exchanges(plan: Plan) -> list[Exchange]:
    """Returns all collectives of a step, without groups of one rank."""
    found = [*_data_exchanges(plan), *_tensor_exchanges(plan), *_partial_exchanges(plan),
             *_expert_exchanges(plan)]
    return [each for each in found if each.size > 1 and each.n_bytes]


def _data_exchanges(plan: Plan) -> Iterator[Exchange]:
    """What the experts need, which fewer ranks share, and what all other parameters need."""
    for part in sizes.divided(plan.config, plan.mesh):
        if plan.stage == 0:
            yield Exchange(what="gradients", op="all_reduce", group=part.gradients,
                          size=part.n_ranks * plan.mesh.replicate,
                          n_bytes=sum(part.local.values()) * plan.sum_dtype.itemsize)
        else:
            yield from _sharded_exchanges(plan, part)


def _sharded_exchanges(plan: Plan, part: sizes.Divided) -> Iterator[Exchange]:
    grad, stream = plan.sum_dtype.itemsize, plan.stream_dtype.itemsize
    n_micro, n = plan.n_micro_batches, sum(part.units.values())
    dp = dict(group=part.shards, size=part.n_ranks)
    is_once = plan.stage == 1 or plan.reduces_once
    yield Exchange(what="gradients", op="reduce_scatter", n_bytes=n * grad,
                  times=1 if is_once else n_micro, **dp)
    if plan.stage < 3:
        yield Exchange(what="new weights", op="all_gather", n_bytes=n * stream, **dp)
    else:
        yield Exchange(what="weights, forward", op="all_gather", n_bytes=n * stream, times=n_micro,
                      **dp)
        if not plan.keeps_after_forward:
            yield Exchange(what="weights, backward", op="all_gather", times=n_micro,
                          n_bytes=(n - part.units["root"]) * stream, **dp)
    yield Exchange(what="gradients of parts", op="all_reduce", group="replicate",
                  size=plan.mesh.replicate, n_bytes=part.n_owned * grad)


def _tensor_exchanges(plan: Plan) -> Iterator[Exchange]:
    """Per micro-batch: two sums per layer forward and two backward, and what the vocabulary needs.

    Sequence parallel replaces each sum by a reduce-scatter and an all-gather of padded tokens.
    """
    n_micro, n_tokens = plan.n_micro_batches, plan.n_rows * plan.seq_len
    stream = plan.config.dim * plan.stream_dtype.itemsize
    product = plan.config.dim * (2 if plan.is_bf16 else plan.stream_dtype.itemsize)
    tp = dict(group="tp", size=plan.mesh.tp)
    number = torch.promote_types(plan.stream_dtype, torch.float32).itemsize
    yield Exchange(what="embedding", op="all_reduce", n_bytes=n_tokens * stream, times=n_micro,
                   **tp)
    yield Exchange(what="loss", op="all_reduce", n_bytes=n_tokens * number, times=3 * n_micro, **tp)
    yield Exchange(what="gradient of head input", op="all_reduce", n_bytes=n_tokens * stream,
                  times=n_micro, **tp)
    times = 2 * plan.config.n_layers * n_micro
    if not plan.is_sequence_parallel:
        yield Exchange(what="layers, forward", op="all_reduce", n_bytes=n_tokens * product,
                      times=times, **tp)
        yield Exchange(what="layers, backward", op="all_reduce", n_bytes=n_tokens * stream,
                      times=times, **tp)
        return
    n_padded = plan.n_rows * -(-plan.seq_len // plan.mesh.tp) * plan.mesh.tp
    for op, forward, backward in (("all_gather", stream, product),
                                  ("reduce_scatter", product, stream)):
        yield Exchange(what="layers, forward", op=op, n_bytes=n_padded * forward, times=times, **tp)
        yield Exchange(what="layers, backward", op=op, n_bytes=n_padded * backward, times=times,
                      **tp)
    yield Exchange(what="stream", op="all_gather", n_bytes=n_padded * stream, times=2 * n_micro,
                  **tp)


def _partial_exchanges(plan: Plan) -> Iterator[Exchange]:
    """Gradients of which ranks along `tp` have computed a part: of copied heads, and of norms."""
    tp, width = plan.mesh.tp, plan.weight_dtype.itemsize
    share = Fraction(width, 1 if plan.stage == 0 else plan.mesh.dp)
    n_copies = max(tp // plan.config.n_kv_heads, 1)
    local, experts = local_sizes(plan), sizes.names_of_experts(plan.config)
    of_heads = sum(n for name, n in local.items() if name.split(".")[-2] in ("wk", "wv"))
    of_tokens = sum(n for name, n in local.items() if name.startswith(sizes.BLOCK)
                    and name.endswith(("norm.weight", "wo.bias", "w_down.bias",
                                       "router.directions.weight")))
    # Of experts, which fewer ranks divide, each rank owns more.
    of_tokens += sum(local[name] for name in experts) * (plan.mesh.ep if plan.stage else 1)
    if not plan.is_sequence_parallel:
        of_tokens = 0
    if n_copies == tp:
        of_heads, of_tokens = 0, of_tokens + of_heads
    if n_copies > 1:
        yield Exchange(what="partial gradients", op="all_reduce", group="copies", size=n_copies,
                      n_bytes=of_heads * share)
    yield Exchange(what="partial gradients", op="all_reduce", group="tp", size=tp,
                  n_bytes=of_tokens * share)


def _expert_exchanges(plan: Plan) -> Iterator[Exchange]:
    """Per layer with experts and micro-batch: numbers of rows, and rows that go, come and return.

    The mean over the ranks, if all experts are chosen equally often.
    """
    ep, n_tokens, n_micro = plan.mesh.ep, plan.n_rows * plan.seq_len, plan.n_micro_batches
    if plan.is_sequence_parallel:
        n_tokens = plan.n_rows * -(-plan.seq_len // plan.mesh.tp)
    for i, spec in enumerate(plan.config.layers):
        if isinstance(experts := spec.feed_forward, Experts):
            layer = dict(group="ep", size=ep, times=n_micro)
            yield Exchange(what=f"{sizes.BLOCK}{i} counts", op="all_gather",
                          n_bytes=8 * experts.n_experts * ep, **layer)
            yield Exchange(what=f"{sizes.BLOCK}{i} rows", op="all_to_all", n_bytes=n_tokens
                          * experts.n_active * plan.config.dim * _there_and_back(plan), **layer)


def _there_and_back(plan: Plan) -> int:
    """Returns the bytes of a row's element forward and backward, to the expert and back."""
    product = 2 if plan.is_bf16 else plan.stream_dtype.itemsize
    return 2 * (plan.stream_dtype.itemsize + product)


def traffic_bytes(plan: Plan, traffic: ExpertTraffic) -> list[int]:
    """Returns what each rank of `ep` sends in a pass of one layer and its backward.

    It sends its rows, and the results of those that it has received; backward sends the gradients
    of both. So it is the same whether a rank sends a row or receives one.
    """
    away = traffic.rows - traffic.rows.diag().diag()
    n_rows = away.sum(0) + away.sum(1)
    return [n * plan.config.dim * _there_and_back(plan) // 2 for n in n_rows.tolist()]


# --- what a rank holds ----------------------------------------------------------------------------


def memory_bytes(plan: Plan) -> dict[str, int]:
    """Returns the bytes of the states on the rank that holds the most, while they are largest.

    "weights": what stays from step to step. "gathered": whole weights of stage 3, for a while.
    "gradients": when backward of the last micro-batch ends. "averages": the two of AdamW.
    Activations are not included.
    """
    width, stream, grad = (dtype.itemsize for dtype in (
        plan.weight_dtype, plan.stream_dtype, plan.sum_dtype))
    if plan.stage == 0:
        n = sum(local_sizes(plan).values())
        narrow = n * width if width < grad else 0  # the optimizer is given gradients like weights
        return {"weights": n * width, "gathered": 0, "gradients": n * grad + narrow,
                "averages": 2 * n * width}
    own = width if plan.compute_dtype is None else grad
    units = unit_sizes(plan)
    n = sum(units.values())
    n_part = sum(part.n_owned for part in sizes.divided(plan.config, plan.mesh))
    n_near = units["root"] + 2 * max(size for unit, size in units.items() if unit != "root")
    is_whole = plan.stage == 1 or plan.reduces_once
    weights = own * n_part if plan.stage == 3 else n * stream + (own * n_part
                                                                 if own != stream else 0)
    gathered = 0 if plan.stage < 3 else stream * (n if plan.keeps_after_forward else min(n_near, n))
    return {"weights": weights, "gathered": gathered,
            "gradients": grad * (n_part + (n if is_whole else min(n_near, n))),
            "averages": 2 * own * n_part}


def local_sizes(plan: Plan) -> dict[str, int]:
    """Returns how many elements of each parameter a rank has after expert and tensor parallelism.

    Raises ValueError if the sizes of the model do not divide.
    """
    return sizes.local_sizes(plan.config, plan.mesh)


def unit_sizes(plan: Plan) -> dict[str, int]:
    """Returns the elements of each unit of `sharded` on this rank's slices, with the padding."""
    found: dict[str, int] = {}
    for part in sizes.divided(plan.config, plan.mesh):
        for unit, n in part.units.items():
            found[unit] = found.get(unit, 0) + n
    return found
