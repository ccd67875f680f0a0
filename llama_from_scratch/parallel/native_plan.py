"""What the torch-native twin asks of PyTorch along `tp`, and which models and meshes it refuses.

Notebook 43.
"""

import torch
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
)

from llama_from_scratch.config import Experts, LlamaConfig
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.parallel.mesh import Axes
from llama_from_scratch.parallel.pipeline.plan import PipelinePlan

STAGES = (0, 2, 3)


def plan(config: LlamaConfig, *, is_sequence_parallel: bool) -> dict[str, ParallelStyle]:
    """Returns the style of each module along `tp`, by name, in PyTorch's words.

    With sequence parallelism, blocks exchange slices of the tokens: Shard(1).
    """
    between = Shard(1) if is_sequence_parallel else Replicate()
    found: dict[str, ParallelStyle] = {
        "tok_embeddings": RowwiseParallel(input_layouts=Replicate(), output_layouts=Replicate()),
        "output": ColwiseParallel(input_layouts=between, output_layouts=Shard(-1),
                                  use_local_output=False)}
    for i in range(config.n_layers):
        attention, ffn = f"layers.{i}.attention", f"layers.{i}.feed_forward"
        found |= {f"{attention}.{name}": ColwiseParallel() for name in ("wq", "wk", "wv")}
        found |= {f"{ffn}.{name}": ColwiseParallel() for name in ("w_gate", "w_up")}
        found |= {f"{attention}.wo": RowwiseParallel(output_layouts=between),
                  f"{ffn}.w_down": RowwiseParallel(output_layouts=between),
                  # Once for all matrices that read it; otherwise each sends its own gradient.
                  attention: PrepareModuleInput(input_layouts=(between, None),
                                                desired_input_layouts=(Replicate(), None)),
                  ffn: PrepareModuleInput(input_layouts=between,
                                          desired_input_layouts=Replicate())}
        if is_sequence_parallel:
            found |= {f"layers.{i}.{norm}": SequenceParallel(use_local_output=True)
                      for norm in ("attention_norm", "ffn_norm")}
    if is_sequence_parallel:
        found |= {"norm": SequenceParallel(use_local_output=True),
                  "layers.0": PrepareModuleInput(
                      input_layouts=(Replicate(), None), desired_input_layouts=(between, None),
                      use_local_output=True)}
    return found


def refuse_what_torch_cannot_do(
    model: Llama, axes: Axes, *, stage: int, param_dtype: torch.dtype | None,
    pipeline: PipelinePlan | None = None, is_sequence_parallel: bool = False,
) -> None:
    """Raises ValueError with all reasons, if there are any."""
    mesh, config = axes.mesh, model.config
    problems = []
    if stage not in STAGES:
        problems.append(f"its stages are 0 (DDP), 2 and 3 (fully_shard), not {stage!r}")
    if mesh.ep > 1:
        problems.append("it does not divide experts among ranks: choose ep=1")
    if pipeline is not None:
        if type(model) is not Llama:
            problems.append(f"a pipeline is cut from a Llama, not from a {type(model).__name__}")
        if pipeline.recomputes or pipeline.n_together is not None:
            problems.append("its pipeline neither recomputes nor takes n_together: "
                            "leave both out")
        if is_sequence_parallel:
            problems.append("its pipeline sends whole tokens: leave sequence parallelism out")
        if stage == 0 and axes.gradients.size > 1:
            problems.append("DDP does not take another forward pass before the backward pass of "
                            "the one before: choose stage 2")
    if stage == 0 and mesh.tp > 1 and axes.gradients.size > 1:
        problems.append("DDP does not take the DTensors of tensor parallelism: choose stage 2")
    if stage == 0 and param_dtype is not None:
        problems.append("DDP has no param_dtype: choose stage 2")
    if mesh.tp > 1:
        if type(model) is not Llama:
            problems.append(f"its plan for tp is for a Llama, not for a {type(model).__name__}")
        if config.n_kv_heads % mesh.tp or config.n_heads % mesh.tp:
            problems.append(f"tp={mesh.tp} must divide the {config.n_heads} heads and "
                            f"{config.n_kv_heads} key/value heads")
        if config.vocab_size % mesh.tp:
            problems.append(f"tp={mesh.tp} must divide the vocabulary of {config.vocab_size}")
        if config.has_qkv_bias or config.has_wo_bias:
            problems.append("its plan for tp has no biases")
        if any(isinstance(spec.feed_forward, Experts) for spec in config.layers):
            problems.append("its plan for tp has no experts: choose tp=1")
    if mesh.ep > 1:
        problems.append(f"it has no expert parallelism for ep={mesh.ep}: choose ep=1")
    if problems:
        raise ValueError(f"the native engine cannot shard this model on {mesh}; "
                         f"{'; '.join(problems)}. Use the engine `own`, or another mesh")
