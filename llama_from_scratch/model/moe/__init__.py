"""A mixture of experts: many feed-forwards in a layer, of which each token goes through few.

routing      Router: which experts a token goes to, and with which score
grouped      grouped_product: each group of rows times its own matrix
layer        MoE: the router, the routed experts and the shared one
balance      how evenly the experts are used, and two ways to make their use even in training
upcycling    upcycle: a dense model becomes one with experts, and computes the same at first

Notebook 23. Llama 4.
"""

from llama_from_scratch.model.moe.balance import (
    Balance,
    BiasedChoice,
    balance_of,
    balancing_loss,
    biased_choices,
    routings_of,
)
from llama_from_scratch.model.moe.layer import MoE, RoutedExperts
from llama_from_scratch.model.moe.routing import BestScores, Router, Routing
from llama_from_scratch.model.moe.upcycling import upcycle

__all__ = ["Balance", "BestScores", "BiasedChoice", "MoE", "RoutedExperts", "Router", "Routing",
           "balance_of", "balancing_loss", "biased_choices", "routings_of", "upcycle"]
