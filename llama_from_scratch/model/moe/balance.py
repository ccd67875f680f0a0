"""How evenly the experts of a model are used, and two ways to make their use even in training.

A router that prefers some experts trains them more, which makes them better, so that it prefers
them more. The balancing loss pulls the router's probabilities toward an even use; it is added to
the loss and has a gradient. The biased choice adds a number to the logits of rarely used experts,
for the choice alone; it has no gradient and leaves the loss as it is. Both exist in training only.

E experts, N tokens, A experts for each of them. Notebook 23. Sources: Fedus et al., Switch
Transformers, arXiv:2101.03961, eq. 4 (loss); Wang et al., Auxiliary-Loss-Free Load Balancing,
arXiv:2408.15664 (bias).
"""

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llama_from_scratch.config import record
from llama_from_scratch.model.moe.layer import MoE
from llama_from_scratch.model.moe.routing import BestScores, Routing


@record
class Balance:
    """How often each expert of one layer was chosen."""

    counts: Int[Tensor, "E"]

    @property
    def shares(self) -> Float[Tensor, "E"]:
        """Each expert's share of all choices."""
        return self.counts / self.counts.sum()

    @property
    def entropy(self) -> float:
        """The entropy of the shares, in nats: ln E if all experts are used equally often."""
        shares_E = self.shares
        return -float(torch.special.xlogy(shares_E, shares_E).sum())

    @property
    def n_effective(self) -> float:
        """How many equally used experts have the same entropy, from 1 to E."""
        return math.exp(self.entropy)

    def overflow(self, capacity: float) -> float:
        """Returns the share of choices that would be dropped if experts had limited room.

        `capacity`: the room of an expert, in units of its even share. This library drops nothing.
        """
        room = capacity * float(self.counts.sum()) / len(self.counts)
        return float((self.counts - room).clamp(min=0).sum() / self.counts.sum())


def balance_of(routings: Sequence[Routing]) -> Balance:
    """Returns the use of a layer's experts, summed over passes. Raises ValueError without any."""
    if not routings:
        raise ValueError("the use of experts is counted over at least one pass; got none. Call the "
                         "model inside `with routings_of(model) as routings`")
    n_experts = routings[0].logits.shape[1]
    counts_E = sum(torch.bincount(each.experts.flatten(), minlength=n_experts)
                   for each in routings)
    return Balance(counts=counts_E)


def balancing_loss(routings: Sequence[Routing]) -> Float[Tensor, ""]:
    """Returns E times the sum over experts of (share of choices) x (mean probability), averaged.

    It is averaged over the routings and 1 if all experts are used equally. The probabilities are
    a softmax of the logits in fp32. The shares are constants, so only the probabilities learn.
    Source: Switch Transformers, eq. 4, without its factor alpha.
    """
    losses = []
    for routing in routings:
        mean_E = routing.logits.float().softmax(-1).mean(0)
        losses.append(mean_E.numel() * (balance_of([routing]).shares * mean_E).sum())
    if not losses:
        raise ValueError("a balancing loss needs the routing of at least one layer with experts; "
                         "got none")
    return torch.stack(losses).mean()


def moe_layers(model: nn.Module) -> dict[str, MoE]:
    """Returns the layers with experts, by their names in the model."""
    return {name: part for name, part in model.named_modules() if isinstance(part, MoE)}


@contextlib.contextmanager
def routings_of(model: nn.Module) -> Iterator[dict[str, list[Routing]]]:
    """Collects where tokens go in each layer with experts, by its name, pass by pass.

    The routings keep their graph, so that a loss of them has a gradient.
    Raises ValueError if the model has no experts.
    """
    layers = moe_layers(model)
    if not layers:
        raise ValueError("only a model with experts has routings; got one without. Its config "
                         "needs a LayerSpec with feed_forward=Experts(...)")
    found: dict[str, list[Routing]] = {name: [] for name in layers}
    hooks = [moe.router.register_forward_hook(
        lambda _, inputs, routing, kept=found[name]: kept.append(routing))
        for name, moe in layers.items()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


class BiasedChoice(nn.Module):
    """Chooses by the largest sum of logit and bias in training, and by the logit alone otherwise.

    The bias of an expert counts for the choice only; scores come from the logits alone. `nudge`
    changes it by the choices since the last time.
    """

    def __init__(self, n_experts: int, *, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.register_buffer("bias_E", torch.zeros(n_experts, device=device))
        self.register_buffer("counts_E", torch.zeros(n_experts, dtype=torch.int64, device=device))

    def forward(self, logits: Float[Tensor, "N E"], n_active: int) -> Int[Tensor, "N A"]:
        if not self.training:
            return logits.topk(n_active, dim=1).indices
        experts_NA = (logits + self.bias_E).topk(n_active, dim=1).indices
        self.counts_E += torch.bincount(experts_NA.flatten(), minlength=len(self.bias_E))
        return experts_NA

    @torch.no_grad()
    def nudge(self, rate: float) -> None:
        """Raises the bias of experts chosen less than the mean by `rate`, and lowers the others."""
        counts_E = self.counts_E.float()
        self.bias_E += rate * torch.sign(counts_E.mean() - counts_E)
        self.counts_E.zero_()


@contextlib.contextmanager
def biased_choices(model: nn.Module) -> Iterator[list[BiasedChoice]]:
    """Lets the routers of a model choose with a bias, and takes the biases out at the end."""
    layers = list(moe_layers(model).values())
    choices = []
    for moe in layers:
        weight = moe.router.directions.weight
        moe.router.choose = BiasedChoice(len(weight), device=weight.device).train(moe.training)
        choices.append(moe.router.choose)
    try:
        yield choices
    finally:
        for moe in layers:
            moe.router.choose = BestScores().train(moe.training)
