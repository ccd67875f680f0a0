"""What context parallelism sends: exact bytes per layer and step, for both styles.

Of a layer, the keys and values of all rows are 2 B S G K numbers. With n ranks a rank sends

              forward          backward
    gather    (n - 1) / n      (n - 1) / n           of these numbers
    ring      (n - 1) / n      2 (n - 1) / n         because keys and values travel again

In the ring, gradients travel in fp32 at least. In addition, every pass gathers the positions and
documents of the rows, two int64 numbers per token.

Notebook 45. Source: The Llama 3 herd of models, arXiv:2407.21783, section 3.3.2.
"""

from fractions import Fraction

import torch

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.parallel.context.context_parallel import STYLES
from llama_from_scratch.parallel.context.pieces import refuse_uncut
from llama_from_scratch.parallel.exchange import Exchange


def context_exchanges(
    config: LlamaConfig, *, style: str, n_ranks: int, n_rows: int, seq_len: int,
    dtype: torch.dtype, n_micro_batches: int = 1, tp: int = 1, n_layers: int | None = None,
    is_training: bool = True,
) -> list[Exchange]:
    """Returns all exchanges of one step along `cp`, for rows with documents.

    `n_rows`, `seq_len`: the whole rows of a micro-batch. `dtype`: of keys and values, bf16 under
    autocast. `tp`: ranks that divide the key/value heads. `n_layers`: of this pipeline stage, by
    default all. `is_training`: backward follows.
    Raises ValueError for another style, and for rows that cannot be cut.
    """
    if style not in STYLES:
        raise ValueError(f"the styles of context parallelism are {' and '.join(STYLES)}; got "
                         f"{style!r}")
    refuse_uncut(seq_len, n_ranks)
    if n_ranks == 1:
        return []
    n_layers = config.n_layers if n_layers is None else n_layers
    n_heads = max(config.n_kv_heads // tp, 1)
    n_numbers = 2 * n_rows * seq_len * n_heads * config.head_dim
    cp, times = dict(group="cp", size=n_ranks), n_layers * n_micro_batches
    found = [Exchange(what="positions and documents", op="all_gather", times=n_micro_batches,
                      n_bytes=2 * n_rows * seq_len * torch.int64.itemsize, **cp)]
    if style == "gather":
        directions = {"all_gather": "forward", "reduce_scatter": "backward"}
        return found + [
            Exchange(what=f"keys and values, {direction}", op=op, times=times,
                     n_bytes=n_numbers * dtype.itemsize, **cp)
            for op, direction in directions.items() if is_training or direction == "forward"]
    wide = torch.promote_types(dtype, torch.float32)
    kinds = {"keys and values, forward": dtype}
    if is_training:
        kinds |= {"keys and values, backward": dtype, "gradients of keys and values": wide}
    return found + [
        Exchange(what=what, op="send", times=times * (n_ranks - 1),
                 n_bytes=n_numbers // n_ranks * of.itemsize, **cp)
        for what, of in kinds.items()]


def context_bytes(exchanges: list[Exchange]) -> Fraction:
    """Returns what one rank sends in all of these exchanges."""
    return sum((each.sent_bytes for each in exchanges), Fraction(0))
