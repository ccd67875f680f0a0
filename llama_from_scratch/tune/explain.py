"""Which words made an answer: attributions of one number to the tokens that a model read.

The number is a *gap*: the logit of one next token minus that of a rival. Five ways to attribute it:
leave one part out and look (`effects`), the gradient times the input, the gradient along a path
(`integrated_gradients`), and the attention of the last layer or of all layers. Only the first two
and the third say something about the gap; attention says where the model looked.

Letters: T tokens, D width, L layers, H heads. Notebook 59. Sources: Sundararajan et al., integrated
gradients, arXiv:1703.01365; Abnar and Zuidema, attention rollout, arXiv:2005.00928; Jain and
Wallace, "Attention is not explanation", arXiv:1902.10186.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.model.transformer import Llama

_AT_ONCE = 32
"""How many points of a way are computed together."""


@record
class PathAttribution:
    """What `integrated_gradients` found, in logits.

    `of_tokens`: one number for each token. `at_text`, `at_baseline`: the gap of the text and of the
    baseline. The numbers add up to the difference of these two, up to `missing`.
    """

    of_tokens: Float[Tensor, " T"]
    at_text: float
    at_baseline: float

    @property
    def missing(self) -> float:
        """By how much the sum of all tokens differs from what it should be, in logits."""
        return float(self.of_tokens.sum()) - (self.at_text - self.at_baseline)


@torch.no_grad()
def gap(model: Llama, ids: Sequence[int], *, right: int, rival: int) -> float:
    """Returns the logit of `right` minus that of `rival` as the token after `ids`.

    Raises ValueError for no ids, and if both tokens are the same.
    """
    _check(ids, right, rival)
    logits_V = model(torch.tensor([list(ids)], device=model.device))[0, -1]
    return float(logits_V[right] - logits_V[rival])


def effects(
    model: Llama, ids: Sequence[int], changed: Sequence[Sequence[int]], *, right: int, rival: int
) -> list[float]:
    """Returns by how much each changed text lowers the gap: what was left out there did that much.

    `changed`: for each part, the ids of the text without it, or with another word in its place.
    """
    before = gap(model, ids, right=right, rival=rival)
    return [before - gap(model, each, right=right, rival=rival) for each in changed]


def gradient_times_input(
    model: Llama, ids: Sequence[int], *, right: int, rival: int
) -> Float[Tensor, " T"]:
    """Returns the product of each token's embedding and the gap's gradient there.

    It is what a *linear* function would owe to each token.
    """
    x_TD = _embedded(model, ids)
    _, gradient_1TD = _gaps_and_gradients(model, x_TD[None], right, rival)
    return (gradient_1TD[0] * x_TD).sum(-1)


def integrated_gradients(
    model: Llama, ids: Sequence[int], *, right: int, rival: int,
    baseline: Float[Tensor, " D"] | None = None, is_explained: Sequence[bool] | None = None,
    n_steps: int = 64,
) -> PathAttribution:
    """Returns what each token adds to the gap on the straight way from a baseline to the text.

    (x - x0) times the mean gradient at `n_steps` midpoints of the way. `baseline`: the vector in
    place of each explained token; by default the mean of all embeddings. `is_explained`: which
    tokens leave the baseline; the others stay as they are, and get 0. By default all are explained.
    Raises ValueError for fewer than one step, and for flags that are not one for each token.
    """
    if n_steps < 1:
        raise ValueError(f"the way needs at least one step; got n_steps={n_steps}")
    flags = [True] * len(ids) if is_explained is None else list(is_explained)
    if len(flags) != len(ids):
        raise ValueError("there is one flag for each token; got "
                         f"{len(flags)} flags and {len(ids)} tokens")
    x_TD = _embedded(model, ids)
    if baseline is None:
        baseline = model.tok_embeddings.weight.detach().mean(0)
    moves_T1 = torch.tensor(flags, device=x_TD.device)[:, None]
    x0_TD = torch.where(moves_T1, baseline.to(x_TD), x_TD)
    ways = (torch.arange(n_steps, device=x_TD.device) + 0.5) / n_steps
    total_TD = torch.zeros_like(x_TD)
    for some in ways.split(_AT_ONCE):
        total_TD += _gaps_and_gradients(
            model, x0_TD + some[:, None, None] * (x_TD - x0_TD), right, rival)[1].sum(0)
    (at_text, at_baseline), _ = _gaps_and_gradients(
        model, torch.stack([x_TD, x0_TD]), right, rival)
    return PathAttribution(of_tokens=((x_TD - x0_TD) * total_TD / n_steps).sum(-1),
                           at_text=at_text, at_baseline=at_baseline)


def last_attention(weights: Float[Tensor, "L H T T"]) -> Float[Tensor, " T"]:
    """Returns how much the last token looks at each token in the last layer, as the heads' mean."""
    return weights[-1].mean(0)[-1]


def rollout(weights: Float[Tensor, "L H T T"]) -> Float[Tensor, " T"]:
    """Returns how much of each token reaches the last one through all layers.

    In each layer, half comes from attention (the heads' mean) and half stays, as in the residual
    stream; the layers' matrices are multiplied.
    """
    T = weights.shape[-1]
    together = torch.eye(T, dtype=weights.dtype, device=weights.device)
    for layer in weights.mean(1):
        together = (0.5 * layer + 0.5 * torch.eye(T, dtype=layer.dtype,
                                                   device=layer.device)) @ together
    return together[-1]


def by_part(values: Float[Tensor, " T"], parts: Sequence[range]) -> list[float]:
    """Returns the sum of a value over the tokens of each part, such as a sentence."""
    return [float(values[part.start:part.stop].sum()) for part in parts]


def _check(ids: Sequence[int], right: int, rival: int) -> None:
    if not len(ids):
        raise ValueError("an explanation needs a text; got no ids")
    if right == rival:
        raise ValueError(f"a gap is between two different tokens; got {right} twice")


@torch.no_grad()
def _embedded(model: Llama, ids: Sequence[int]) -> Float[Tensor, "T D"]:
    return model.embed(torch.tensor([list(ids)], device=model.device))[0].clone()


def _gaps_and_gradients(
    model: Llama, x_BTD: Float[Tensor, "B T D"], right: int, rival: int
) -> tuple[list[float], Float[Tensor, "B T D"]]:
    """Returns the gap of each row of embeddings, and its gradient."""
    if right == rival:
        raise ValueError(f"a gap is between two different tokens; got {right} twice")
    x_BTD = x_BTD.detach().requires_grad_()
    logits_BV = model.head(model.run(x_BTD, model.prepare(x_BTD)))[:, -1]
    gaps_B = logits_BV[:, right] - logits_BV[:, rival]
    gradient_BTD, = torch.autograd.grad(gaps_B.sum(), x_BTD)
    return gaps_B.tolist(), gradient_BTD
