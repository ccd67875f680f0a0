"""Which matrices tensor parallel cuts, and what must divide for it: heads, channels, vocabulary.

Routers and routed experts are not cut. Of a layer with experts, only the shared expert is.

Notebook 43.
"""

from collections.abc import Iterator

from torch import nn

from llama_from_scratch.config import record
from llama_from_scratch.foreign import shown
from llama_from_scratch.model.adapted import adapters
from llama_from_scratch.model.attention import Attention
from llama_from_scratch.model.feed_forward import FeedForward
from llama_from_scratch.model.moe import MoE
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.vision.adapter import VisionLlama
from llama_from_scratch.vision.cross_attention import CrossAttention
from llama_from_scratch.vision.encoder import VisionAttention, VisionFeedForward


@record
class CutPair:
    """The matrices of a module that are cut by outputs, and the one after them, by inputs.

    `of_kv_heads`: the matrices that may have fewer heads than there are ranks.
    """

    name: str
    first: tuple[str, ...]
    second: str
    of_kv_heads: tuple[str, ...] = ()


PAIRS: dict[type[nn.Module], CutPair] = {
    Attention: CutPair(name="attention", first=("wq", "wk", "wv"), second="wo",
                    of_kv_heads=("wk", "wv")),
    FeedForward: CutPair(name="feed-forward", first=("w_gate", "w_up"), second="w_down"),
    CrossAttention: CutPair(name="cross-attention", first=("wq", "wk", "wv"), second="wo",
                         of_kv_heads=("wk", "wv")),
    VisionAttention: CutPair(name="encoder attention", first=("wq", "wk", "wv"), second="wo"),
    VisionFeedForward: CutPair(name="encoder feed-forward", first=("w_up",), second="w_down"),
}


def refuse_unfit(model: nn.Module, *, n_ranks: int) -> None:
    """Raises ValueError unless `n_ranks` ranks can share the matrices of this model equally."""
    if not isinstance(model, Llama):
        raise ValueError(f"tensor parallelism splits a Llama; got {shown(model)}. Load one first: "
                         "llama.load(PATH)")
    if adapted := adapters(model):
        raise ValueError("a mesh divides the plain matrices of a model, and adapters would stay "
                         f"behind; this model has {len(adapted)}, such as {next(iter(adapted))}. "
                         "Merge them with tune.lora.merge(model), take them out with "
                         "tune.lora.remove(model), or train them on one device")
    if odd := next(_of_other_kinds(model), None):
        raise ValueError(f"tensor parallelism knows how to cut {', '.join(map(_name, PAIRS))} of "
                         f"plain linear layers, and an embedding; {odd}. Split a plain model, "
                         "once; for one with other parts, use shard_natively or, without tp, "
                         "DataParallel or Sharded")
    wrong = {name: n for name, n in _sizes(model).items() if not _fits(name, n, n_ranks)}
    if wrong:
        able = [n for n in range(1, model.config.n_heads + 1)
                if all(_fits(name, size, n) for name, size in _sizes(model).items())]
        raise ValueError(
            "ranks share heads, hidden channels and vocabulary equally, so the number of ranks "
            "must divide each (or be a multiple of n_kv_heads, which are then copied); got "
            f"{_told(wrong)} for {n_ranks} ranks. This model fits on {_listed(able)}; {n_ranks} "
            f"ranks would fit {_told({n: _larger(n, size, n_ranks) for n, size in wrong.items()})}")


def _sizes(model: Llama) -> dict[str, int]:
    """Returns what ranks share, by the names in the config."""
    config = model.config
    found = dict(n_heads=config.n_heads, n_kv_heads=config.n_kv_heads)
    for name, module in model.layers.named_modules():
        if type(module) is FeedForward:
            width = module.w_up.out_features
            found["ffn_dim" if width == config.ffn_dim else f"the width of {name}"] = width
    found["vocab_size"] = config.vocab_size
    if isinstance(model, VisionLlama):
        found |= {"vision.n_heads": config.vision.n_heads, "vision.ffn_dim": config.vision.ffn_dim}
    return found


def _fits(name: str, size: int, n_ranks: int) -> bool:
    return size % n_ranks == 0 or (name == "n_kv_heads" and n_ranks % size == 0)


def _larger(name: str, size: int, n_ranks: int) -> int:
    """Returns the next larger size that would fit."""
    return next(n for n in range(size, size + n_ranks) if _fits(name, n, n_ranks))


def _of_other_kinds(model: Llama) -> Iterator[str]:
    """Yields what is not known how to cut, each with its name and kind."""
    known = {model.tok_embeddings.weight, model.output.weight}
    linears = {"output": model.output}
    for name, module in model.named_modules():
        if (pair := PAIRS.get(type(module))) is not None:
            for part in (*pair.first, pair.second):
                linears[f"{name}.{part}"] = getattr(module, part)
    for module in model.modules():
        if isinstance(module, MoE):  # these stay whole on every rank
            known.update((*module.router.parameters(), *module.experts.parameters()))
    for name, part in linears.items():
        known.update(part.parameters())
        if type(part) is not nn.Linear:
            yield f"{name} is a {_name(type(part))}"
    if type(model.tok_embeddings) is not nn.Embedding:
        yield f"tok_embeddings is a {_name(type(model.tok_embeddings))}"
    for name, module in model.layers.named_modules():
        if any(p.ndim > 1 and p not in known for p in module.parameters(recurse=False)):
            yield f"layers.{name} is a {_name(type(module))}"


def _name(kind: type) -> str:
    return kind.__name__


def _told(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name}={size}" for name, size in sizes.items())


def _listed(numbers: list[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} or {last} ranks" if first else f"{last} rank"
