"""What blocks need in addition to the residual stream, in one frozen record.

A forward pass computes it once for all layers: the rotations of the new tokens, and which tokens
each of them may see. A block takes from it what its own parts need. So a new kind of input, such as
image states, is a new field here and not a new argument anywhere.

Notebook 15.
"""

from collections.abc import Mapping

from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.model.mask import GivenMask, VisibleRule


@record
class ImageInputs:
    """What cross-attention looks at in one forward pass: the image tokens of each row.

    `states`: of images that are new in this pass; None if a cache holds the keys and values of all
    images. `visible`: which image tokens each text token may see. The S image tokens are those in
    the cache, followed by the new ones. A softmax needs at least one key, so a token that sees no
    image is shown all of them. `sees_image` is False there, and what it found is multiplied by 0.
    `is_blind`: whether such a token's attention is multiplied by 0 as well, as in Meta's code; in
    transformers only its feed-forward is.
    """

    states: Float[Tensor, "B new D"] | None
    visible: GivenMask
    sees_image: Bool[Tensor, "B T"]
    is_blind: bool = True


@record
class BlockInputs:
    """What all blocks of one forward pass share.

    `rotation`: of each new token and pair, see `model.rope`. `visible`: what attention may look at,
    for each chunk size among the layers; the key None means "no chunks". `positions`: of each new
    token; only layers with temperature tuning need them. In `rotation` and `positions`, B may be 1.
    `images`: what cross-attention may look at; None without images.
    """

    rotation: Complex[Tensor, "#B T R"]
    visible: Mapping[int | None, VisibleRule]
    positions: Int[Tensor, "#B T"] | None = None
    images: ImageInputs | None = None
