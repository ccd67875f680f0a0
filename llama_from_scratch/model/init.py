"""Fresh weights: how large the numbers of a matrix are before anything is learned.

A row times n inputs of size 1 should give about half their size at any width, so weights are drawn
with a standard deviation of 1 / (2 sqrt(n)). The usual 0.02 is this rule at a width of 625, and too
quiet for a small model to learn fast. A matrix that adds to the residual stream is smaller by the
root of the number of additions, because equal ones would let the stream grow with that root.

Notebook 15. Source of the second part: Radford et al., Language Models are Unsupervised Multitask
Learners (GPT-2), section 2.3.
"""

import math

import torch
from torch import nn


@torch.no_grad()
def init_linear(layer: nn.Linear | nn.Embedding, *, n_additions: int = 1) -> None:
    """Draws the weight, rows of n inputs, from torch's global generator; a bias begins at zero.

    `n_additions`: how many results like this one's are added up in the residual stream, two per
    layer; 1 for a matrix that does not write to it.
    """
    layer.weight.normal_(std=0.5 / math.sqrt(layer.weight.shape[1] * n_additions))
    if isinstance(layer, nn.Linear) and layer.bias is not None:
        layer.bias.zero_()
