"""The router of a mixture of experts: one product per token decides where the token goes.

Each expert has a direction in the residual stream. The product of a token with it is the expert's
logit. A token goes to the A experts with the largest logits, each of which sees the token times the
sigmoid of its logit. The choice itself has no gradient; the router learns through these scores.

N tokens, E experts, A of them for each token. Notebook 23. Llama 4. Source of the idea: Shazeer et
al., Outrageously Large Neural Networks, arXiv:1701.06538; top-1: Fedus et al., Switch Transformers,
arXiv:2101.03961. Scores and their place: llama-models, models/llama4/moe.py.
"""

from jaxtyping import Float, Int
from torch import Tensor, nn

from llama_from_scratch.config import record
from llama_from_scratch.model.init import init_linear


@record
class Routing:
    """Where the tokens of one layer go.

    `logits`: of every expert. `experts`: the numbers of those chosen, the best first. `scores`:
    what the token is multiplied by for each of them, between 0 and 1.
    """

    logits: Float[Tensor, "N E"]
    experts: Int[Tensor, "N A"]
    scores: Float[Tensor, "N A"]


class BestScores(nn.Module):
    """Chooses the experts with the largest logits. A part without parameters, to be exchanged."""

    def forward(self, logits: Float[Tensor, "N E"], n_active: int) -> Int[Tensor, "N A"]:
        return logits.topk(n_active, dim=1).indices


class Router(nn.Module):
    """Tokens -> `Routing`. Scores are not divided by their sum, so a token may be scored low."""

    def __init__(self, dim: int, n_experts: int, *, n_active: int) -> None:
        super().__init__()
        self.n_active = n_active
        self.directions = nn.Linear(dim, n_experts, bias=False)
        self.choose = BestScores()

    def forward(self, x: Float[Tensor, "N D"]) -> Routing:
        """Returns the routing; the sigmoid is computed in fp32, as in transformers."""
        logits_NE = self.directions(x)
        experts_NA = self.choose(logits_NE.detach(), self.n_active)
        chosen_NA = logits_NE.gather(1, experts_NA)
        wide = chosen_NA if chosen_NA.element_size() > 4 else chosen_NA.float()
        return Routing(logits=logits_NE, experts=experts_NA, scores=wide.sigmoid().to(x.dtype))

    def init_weights(self) -> None:
        """Draws fresh directions (`model.init`)."""
        init_linear(self.directions)
