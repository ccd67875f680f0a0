"""Checks that the tensors of a checkpoint fit its config exactly.

Errors name each tensor that is missing, extra or of another shape. All sizes in a config are
checked against the files before they are used, because a forged number would allocate memory.

Notebook 18.
"""

from collections.abc import Mapping
from pathlib import Path

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.foreign import plain, shown
from llama_from_scratch.model.costs import param_shapes

N_NAMED = 8
"""How many differences a message names; it only counts the others."""


def refuse_differences(
    found: Mapping[str, tuple[int, ...]], needed: Mapping[str, tuple[int, ...]], *, where: str
) -> None:
    """Raises ValueError, listing them, for tensors that are missing, extra or of another shape.

    `found`, `needed`: name -> shape.
    """
    problems = [f"{name} is missing" for name in needed if name not in found]
    problems += [f"{name} is not of this model" for name in found if name not in needed]
    problems += [f"{name} is {tuple(found[name])}, not {needed[name]}"
                 for name in needed if name in found and tuple(found[name]) != needed[name]]
    if problems:
        raise ValueError(f"the tensors in {where} must fit its config; {listed(problems)}. Copy or "
                         "convert the checkpoint again, or correct the config")


def refuse_impossible_sizes(config: LlamaConfig, *, n_values: int, where: str | Path) -> None:
    """Raises ValueError for sizes that are impossible in files with `n_values` numbers.

    The check itself allocates nothing of these sizes.
    """
    if config.dim > n_values:
        raise ValueError(f"dim is the length of every norm, so it cannot exceed the {n_values} "
                         f"numbers in the files; {where} says {shown(config.dim)}. Download the "
                         "checkpoint again, or correct the config")
    if config.n_heads * config.head_dim > n_values:
        raise ValueError("wq has a row for each channel of each head, so these cannot exceed the "
                         f"{n_values} numbers in the files; {where} says {config.n_heads} heads of "
                         f"{config.head_dim}. Download the checkpoint again, or correct the config")
    try:
        param_shapes(config)
    except (RuntimeError, OverflowError, TypeError) as error:
        # PyTorch counts bytes in 64 bits.
        raise ValueError(f"a tensor must fit into memory; {where} describes one that is too large "
                         f"for any machine ({str(error).splitlines()[0]:.120}). Download the "
                         "checkpoint again, or correct the config") from error


def listed(problems: list[str]) -> str:
    """Returns the first problems in one line, and the number of other problems."""
    more = f" and {len(problems) - N_NAMED} more" if len(problems) > N_NAMED else ""
    return "; ".join(plain(problem) for problem in sorted(problems)[:N_NAMED]) + more
