"""Training with experts that are used evenly: a term in the loss, or a bias after each step.

`BalancedNats` replaces the loss of a step. It adds the balancing loss of all layers, times a
factor, to the nats; validation stays without it. `BiasedSteps` wraps the parts of a step. Routers
choose with a bias, which is changed after each backward pass. The loss and its gradient stay what
they are, and validation is without the biases, because no published file of Llama 4 has a place for
them.

Notebook 23. Sources: Switch Transformers, arXiv:2101.03961, eq. 4; Auxiliary-Loss-Free Load
Balancing, arXiv:2408.15664.
"""

import contextlib
import dataclasses
from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.model.moe.balance import balancing_loss, biased_choices, routings_of
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train.data import Batch, Packed
from llama_from_scratch.train.loss import sum_of_nats
from llama_from_scratch.train.parts import TrainParts
from llama_from_scratch.train.records import Evaluation


@record
class BalancedNats:
    """A loss for `TrainParts.loss`: nats, and `factor` times the balancing loss of each target.

    Switch Transformers trained with a factor of 0.01.
    """

    factor: float

    def __call__(
        self, model: Llama, batch: Batch, *, is_bf16: bool = False
    ) -> Float[Tensor, ""]:
        """Returns a sum over the targets. Raises ValueError if the model has no experts."""
        with routings_of(model) as found:
            nats = sum_of_nats(model, batch, is_bf16=is_bf16)
        balance = balancing_loss([routing for passes in found.values() for routing in passes])
        return nats + self.factor * batch.n_targets * balance


@record
class BiasedSteps:
    """Parts of a step whose routers choose with a bias, which moves by `rate` after each step.

    For training in one process, because each process would count its own choices only. The biases
    are not saved, so such a run begins again after an interruption.
    """

    rate: float

    @contextlib.contextmanager
    def __call__(self, model: Llama, parts: TrainParts) -> Iterator[TrainParts]:
        """Yields the parts; at the end the routers choose without a bias again.

        Raises ValueError if the model has no experts.
        """
        with routings_of(model):  # refuses a model without experts
            pass
        with biased_choices(model) as choices:

            def reduce(model: Llama, loss: Tensor) -> Tensor:
                whole = parts.reduce(model, loss)
                for choice in choices:
                    choice.nudge(self.rate)
                return whole

            def evaluate(
                model: Llama, data: Packed, *, batch_size: int, seq_len: int, is_bf16: bool
            ) -> Evaluation:
                was_training = model.training
                model.eval()
                try:
                    return parts.evaluate(model, data, batch_size=batch_size, seq_len=seq_len,
                                          is_bf16=is_bf16)
                finally:
                    model.train(was_training)

            yield dataclasses.replace(parts, reduce=reduce, evaluate=evaluate)
