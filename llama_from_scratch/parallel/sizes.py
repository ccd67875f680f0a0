"""How many elements of each parameter a rank has, and which ranks divide them further.

Tensor parallelism leaves a rank with slices of most matrices, and expert parallelism with some of
the experts. Then ZeRO divides what is left, unit by unit: experts among the ranks that hold the
same experts, everything else among all that hold the same slices. A unit is padded to a multiple of
its number of ranks.

Notebooks 42 and 46.
"""

from collections.abc import Mapping

from llama_from_scratch.config import LlamaConfig, record
from llama_from_scratch.model.moe.balance import moe_layers
from llama_from_scratch.model.unwritten import unwritten
from llama_from_scratch.parallel import divisible, expert_parallel
from llama_from_scratch.parallel.mesh import Mesh

BLOCK = "layers."


@record
class Divided:
    """Parameters that the same ranks divide: `local` elements of each, on this rank's slices.

    `shards`, `gradients`: the names of the groups that divide them, and that add up their
    gradients. `n_ranks`: the size of `shards`.
    """

    local: Mapping[str, int]
    shards: str
    gradients: str
    n_ranks: int

    @property
    def units(self) -> dict[str, int]:
        """The elements of each unit, with the padding."""
        found: dict[str, int] = {"root": 0}
        for name, n in self.local.items():
            unit = ".".join(name.split(".")[:2]) if name.startswith(BLOCK) else "root"
            found[unit] = found.get(unit, 0) + n
        return {unit: -(-n // self.n_ranks) * self.n_ranks for unit, n in found.items()}

    @property
    def n_owned(self) -> int:
        """How many elements a rank owns, with the padding."""
        return sum(self.units.values()) // self.n_ranks


def divided(config: LlamaConfig, mesh: Mesh) -> list[Divided]:
    """Returns the parameters other than routed experts, and those, if ranks divide the experts.

    Raises ValueError if the sizes of the model do not divide.
    """
    local = local_sizes(config, mesh)
    if mesh.ep == 1:
        return [Divided(local=local, shards="dp", gradients="data", n_ranks=mesh.dp)]
    experts = names_of_experts(config)
    gradients = "expert_shards" if mesh.replicate == 1 else "expert_gradients"
    rest = {name: n for name, n in local.items() if name not in experts}
    return [Divided(local=rest, shards="dp", gradients="data", n_ranks=mesh.dp),
            Divided(local={name: local[name] for name in experts}, shards="expert_shards",
                    gradients=gradients, n_ranks=mesh.dp // mesh.ep)]


def local_sizes(config: LlamaConfig, mesh: Mesh) -> dict[str, int]:
    """Returns how many elements of each parameter a rank has after expert and tensor parallelism.

    Raises ValueError if the sizes of the model do not divide.
    """
    model, tp = unwritten(config), mesh.tp
    expert_parallel.refuse_unfit(model, n_ranks=mesh.ep)
    divisible.refuse_unfit(model, n_ranks=tp)
    parts = {p: mesh.ep for moe in moe_layers(model).values() for p in moe.experts.parameters()}
    parts |= {model.tok_embeddings.weight: tp, model.output.weight: tp}
    for module in model.layers.modules():
        if (pair := divisible.PAIRS.get(type(module))) is not None:
            for name in pair.first:
                n_parts = min(tp, config.n_kv_heads) if name in pair.of_kv_heads else tp
                parts |= dict.fromkeys(getattr(module, name).parameters(), n_parts)
            parts[getattr(module, pair.second).weight] = tp
    return {name: p.numel() // parts.get(p, 1) for name, p in model.named_parameters()}


def names_of_experts(config: LlamaConfig) -> list[str]:
    """Returns the names of the weights of routed experts."""
    return [f"{name}.experts.{leaf}" for name, moe in moe_layers(unwritten(config)).items()
            for leaf, _ in moe.experts.named_parameters()]
