"""What blocks need in addition to the residual stream, in one frozen record.

A forward pass computes it once for all layers: the rotations of the new tokens, and which tokens
each of them may see. A block takes from it what its own parts need. So a new kind of input, such as
image states, is a new field here and not a new argument anywhere.

Notebook 15.
"""

from collections.abc import Mapping

from jaxtyping import Complex
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.model.mask import Visible


@record
class BlockInputs:
    """What all blocks of one forward pass share.

    `rotation`: of each new token and pair, see `model.rope`; B may be 1. `visible`: what attention
    may look at, for each chunk size among the layers; the key None means "no chunks".
    """

    rotation: Complex[Tensor, "#B T R"]
    visible: Mapping[int | None, Visible]
