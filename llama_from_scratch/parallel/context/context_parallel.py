"""Context parallel: the ranks of a group hold the same weights and different tokens of each row.

Everything in a Llama but attention looks at one token at a time, so only attention must change. Its
leaf, `attention.attend`, is exchanged in every layer, and `model.visibility`, which tells it who
may see whom. Two styles bring queries and keys together:

    gather   each layer gathers all keys and values: one exchange, few bytes with grouped queries
    ring     keys and values travel from rank to rank: no rank ever has all of them

A training step cuts its batch with `tokens_of`, divides its sum of losses by the number of targets
of the whole batch, and adds up the gradients of the ranks, as data parallelism does.

Notebook 45. Sources: The Llama 3 herd of models, arXiv:2407.21783, section 3.3.2; Liu et al.,
arXiv:2310.01889.
"""

from jaxtyping import Shaped
from torch import Tensor

from llama_from_scratch.model.attention import Attention, SoftmaxAttention
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.model.visibility import Visibility
from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.context import pieces
from llama_from_scratch.parallel.context.gather import GatheredAttention
from llama_from_scratch.parallel.context.ring import RingAttention
from llama_from_scratch.parallel.context.sight import VisibilityAcrossRanks
from llama_from_scratch.train.data import Batch

STYLES = ("gather", "ring")


class ContextParallel:
    """Changes `model` in place, so that each rank of `group` computes its tokens of every row.

    All ranks call it, after tensor parallelism and before data parallelism. It adds no parameters
    and changes none. The model may have only some of its layers. With one rank it stays as it is.
    Raises ValueError for an unknown style, for a model that sees images, and for parts that are
    exchanged already and that the style would not use. Then the model is unchanged.
    """

    def __init__(self, model: Llama, group: RankGroup, *, style: str = "gather") -> None:
        _refuse_unfit(model, style)
        self.group, self.style = group, style
        if group.size == 1:
            return
        model.visibility = VisibilityAcrossRanks(group, max_seq_len=model.config.max_seq_len)
        for attention in _attentions(model):
            attention.attend = (RingAttention(group) if style == "ring"
                                else GatheredAttention(attention.attend, group))

    def tokens_of(self, batch: Batch) -> Batch:
        """Returns this rank's tokens of a batch that all ranks have. Errors as `pieces`."""
        return pieces.tokens_of(batch, self.group)

    def whole_of(self, x: Shaped[Tensor, "*part"], *, axis: int = 1) -> Shaped[Tensor, "*whole"]:
        """Returns the whole rows in order, from every rank's tokens. All ranks call it."""
        return pieces.whole_of(x, self.group, axis=axis)


def _attentions(model: Llama) -> list[Attention]:
    return [module for module in model.layers.modules() if isinstance(module, Attention)]


def _refuse_unfit(model: Llama, style: str) -> None:
    if style not in STYLES:
        raise ValueError(f"the styles of context parallelism are {' and '.join(STYLES)}; got "
                         f"{style!r}")
    if type(model) is not Llama:
        raise ValueError("context parallelism divides the tokens of a text model; got a "
                         f"{type(model).__name__}, whose images belong to whole rows (its "
                         "cross-attention, or its places in the text). Choose cp=1")
    if type(model.visibility) is not Visibility:
        raise ValueError("context parallelism is applied once to a plain model; got one with "
                         f"{type(model.visibility).__name__} in it already. Make a new model")
    if style == "ring":
        for attention in _attentions(model):
            if type(attention.attend) is not SoftmaxAttention:
                raise ValueError("the ring computes attention itself, in place of SoftmaxAttention;"
                                 f" got a {type(attention.attend).__name__}, which it would not "
                                 'use. Choose style="gather", which calls it')
