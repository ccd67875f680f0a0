"""Fresh weights: how large the numbers of a matrix are before anything is learned.

The product of a row with n inputs of size 1 should have a size of about one half at any width, so
weights are drawn with a standard deviation of 1 / (2 sqrt(n)). The usual 0.02 equals this rule at a
width of 625, and is too small for a small model to learn fast. The weights of a matrix that adds to
the residual stream are also divided by the square root of the number of additions. Otherwise the
stream would grow with that root.

Notebook 15. Source of the second part: Radford et al., Language Models are Unsupervised Multitask
Learners (GPT-2), section 2.3.
"""

import math

import torch
from torch import Tensor, nn


@torch.no_grad()
def init_linear(layer: nn.Linear | nn.Embedding, *, n_additions: int = 1) -> None:
    """Draws a weight with rows of n inputs from torch's global generator; sets a bias to zero.

    `n_additions`: how many results are added to the residual stream, two per layer; 1 for a matrix
    that does not add to it.
    """
    init_weight(layer.weight, n_inputs=layer.weight.shape[1], n_additions=n_additions)
    if isinstance(layer, nn.Linear) and layer.bias is not None:
        layer.bias.zero_()


@torch.no_grad()
def init_weight(weight: Tensor, *, n_inputs: int, n_additions: int = 1) -> None:
    """Draws a weight of any layout, each of whose results is a sum over `n_inputs` products."""
    weight.normal_(std=0.5 / math.sqrt(n_inputs * n_additions))
