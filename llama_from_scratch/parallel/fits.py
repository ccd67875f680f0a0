"""Whether a training fits a mesh, asked before any rank builds its part or waits for another.

Some runtimes hang when a stage of a pipeline is empty, or fail in the first step when a sequence
cannot be cut. Everything that is asked here follows from a config, a mesh and a few numbers.

Notebook 47.
"""

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.model.unwritten import unwritten
from llama_from_scratch.parallel import divisible, expert_parallel
from llama_from_scratch.parallel.context import refuse_uncut
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.pipeline.layers import layers_of
from llama_from_scratch.parallel.pipeline.plan import PipelinePlan


def refuse_unfit(
    config: LlamaConfig, mesh: Mesh, *, batch_size: int, micro_batch_size: int | None = None,
    seq_len: int, pipeline: PipelinePlan | None = None,
) -> None:
    """Raises ValueError, with the cure, if this model cannot be trained on this mesh.

    `batch_size`: the rows of a step on all ranks. `micro_batch_size`: the rows that go through a
    rank's model at once, by default all of the rank's. `seq_len`: the tokens of a row.
    """
    model = unwritten(config)
    divisible.refuse_unfit(model, n_ranks=mesh.tp)
    expert_parallel.refuse_unfit(model, n_ranks=mesh.ep)
    refuse_uncut(seq_len, mesh.cp)
    refuse_unshared(batch_size, n_ranks=mesh.dp * mesh.replicate)
    if mesh.pp > 1:
        plan = PipelinePlan() if pipeline is None else pipeline
        layers_of(config.n_layers, mesh.pp * plan.n_chunks)
        n_micro = n_micro_batches(batch_size // (mesh.dp * mesh.replicate), micro_batch_size)
        plan.on(mesh.pp, n_micro_batches=n_micro)


def n_micro_batches(n_rows: int, micro_batch_size: int | None) -> int:
    """Returns into how many equal micro-batches a pipeline divides the rows of a rank.

    Raises ValueError if `micro_batch_size` does not divide them.
    """
    size = micro_batch_size or n_rows
    if n_rows % size:
        able = [n for n in range(1, n_rows + 1) if n_rows % n == 0]
        raise ValueError("the micro-batches of a pipeline have equally many rows; got "
                         f"micro_batch_size={size} for the {n_rows} rows of a rank. Choose one of "
                         f"{', '.join(map(str, able))}")
    return n_rows // size


def refuse_unshared(n_rows: int, *, n_ranks: int) -> None:
    """Raises ValueError if `n_ranks` does not divide the rows of a batch."""
    if n_rows % n_ranks:
        raise ValueError("the ranks that share a batch have equally many rows each; got "
                         f"{n_rows} rows for {n_ranks} ranks. Choose a batch of "
                         f"{max(n_rows // n_ranks, 1) * n_ranks} or "
                         f"{(n_rows // n_ranks + 1) * n_ranks} rows")
