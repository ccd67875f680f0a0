"""What blocks need besides the residual stream, in one frozen record for all of them.

A forward pass computes these things once, for all layers: the rotations of the tokens at hand and
who may look at whom. A block takes from it what its own parts need, so a new kind of input (image
states, say) is a new field here and no new argument anywhere.

Notebook 15.
"""

from collections.abc import Mapping

from jaxtyping import Complex
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.model.mask import Visible


@record
class BlockInputs:
    """`rotation`: of each new token and pair, see `model.rope`; B may be 1.

    `visible`: for each chunk size among the layers, None being "no chunks", what attention may
    look at.
    """

    rotation: Complex[Tensor, "#B T R"]
    visible: Mapping[int | None, Visible]
