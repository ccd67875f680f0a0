"""Temperature tuning: queries grow slowly with their position, so that attention stays sharp.

A softmax over more keys gives each of them less weight. In a layer without RoPE that sees all
earlier tokens, a token at position 100,000 therefore spreads its attention more than one at
position 1,000. Llama 4 multiplies its query by a number that grows with the logarithm of the
position, and so makes the softmax sharper again.

Notebook 24. Llama 4. Sources: `config.TemperatureTuning`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llama_from_scratch.config import TemperatureTuning


def query_scales(
    positions: Int[Tensor, "B T"], tuning: TemperatureTuning
) -> Float[Tensor, "B T"]:
    """Returns 1 + strength * ln(1 + floor((position + 1) / floor)), in fp32.

    The quotient is rounded down as a whole number, before anything becomes a float. In fp32, it
    would be wrong for positions above 2^24.
    """
    steps_BT = torch.div(positions + 1, tuning.floor, rounding_mode="floor")
    return 1 + tuning.strength * torch.log1p(steps_BT.float())


class Tempered(nn.Module):
    """Multiplies queries by `query_scales`; the product is in fp32, or float64 for such queries."""

    def __init__(self, tuning: TemperatureTuning) -> None:
        super().__init__()
        self.tuning = tuning

    def forward(
        self, q: Float[Tensor, "B T H K"], positions: Int[Tensor, "#B T"] | None
    ) -> Float[Tensor, "B T H K"]:
        """Raises ValueError without positions."""
        if positions is None:
            raise ValueError("a layer with temperature tuning needs the position of each token; "
                             "got none. Give BlockInputs(positions=...), as Llama.prepare does")
        return (q * query_scales(positions, self.tuning)[..., None, None]).to(q.dtype)

    def extra_repr(self) -> str:
        return f"{self.tuning}"


class Unscaled(nn.Module):
    """Returns queries unchanged: replaces `Tempered` where a layer has no temperature tuning."""

    def forward(
        self, q: Float[Tensor, "B T H K"], positions: Int[Tensor, "#B T"] | None
    ) -> Float[Tensor, "B T H K"]:
        return q
