"""Context parallel: each rank has some tokens of every row, and attention reaches across ranks.

pieces             zig-zag: which tokens a rank holds, and whole rows again
sight              who may see whom: order, documents, chunks
gather, ring       two attention leaves: all keys come here, or they travel by
blocks             partial softmaxes, merged, and their gradients
context_parallel   both put into a model from outside
costs              the bytes of both

Notebook 45.
"""

from llama_from_scratch.parallel.context.context_parallel import STYLES, ContextParallel
from llama_from_scratch.parallel.context.pieces import padded, refuse_uncut, tokens_of, whole_of

__all__ = ["STYLES", "ContextParallel", "padded", "refuse_uncut", "tokens_of", "whole_of"]
