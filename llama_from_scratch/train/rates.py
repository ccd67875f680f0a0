"""Steps of the stages in which a model learns to see: AdamW with several learning rates.

Gates, new blocks and an encoder that has already learned need different rates. Notebook 22.
"""

from collections.abc import Callable, Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from llama_from_scratch.config import record
from llama_from_scratch.train.optimizer import AdamW, Group, clip_gradients


@record
class SeeingStep:
    """One step of a stage: its loss in nats, and tanh of each gate of the adapter, by name."""

    step: int
    loss: float
    gates: Mapping[str, float]


OnStep = Callable[[SeeingStep], object] | None


class Rates:
    """AdamW with several peak learning rates, which rise and fall together over a run.

    `groups`: the peak rate of some parameters, and the parameters by name.
    """

    def __init__(
        self, groups: Sequence[tuple[float, Mapping[str, nn.Parameter]]], *, n_steps: int
    ) -> None:
        self.n_steps, self.n_taken = n_steps, 0
        self.params = [p for _, params in groups for p in params.values()]
        self.optimizers = [
            (peak, AdamW([Group(params=dict(params), weight_decay=0.0)], beta2=0.98))
            for peak, params in groups if params]

    def step(self, loss: Float[Tensor, ""]) -> None:
        """Makes one step against the gradients of `loss`, clipped to length 1."""
        loss.backward()
        clip_gradients(self.params, max_norm=1.0)
        for peak, optimizer in self.optimizers:
            optimizer.step(lr=peak * share_of_peak(self.n_taken, n_steps=self.n_steps))
            optimizer.zero_grad()
        self.n_taken += 1


def share_of_peak(step: int, *, n_steps: int) -> float:
    """Returns the learning rate of a step as a share of its peak.

    It rises for 30 steps, stays, and falls in a straight line over the last 60 % of the steps, to
    one fiftieth.
    """
    return min(1.0, (step + 1) / 30) * min(1.0, max(0.02, (n_steps - step) / (0.6 * n_steps)))


def gates_of(params: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Returns the gates among named parameters."""
    return {name: p for name, p in params.items() if "gate.weight" in name and p.ndim == 1}


def without_gates(params: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Returns all named parameters but the gates."""
    return {name: p for name, p in params.items() if name not in gates_of(params)}
