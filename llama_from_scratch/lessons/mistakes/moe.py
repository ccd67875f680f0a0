"""Common mistakes of readers in chapter 23."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


# --- 1: parameters that are stored and used -------------------------------------------------------


@listed("23.1", of="moe_params")
def without_router(
    dim: int, width: int, shared_width: int, n_experts: int, n_active: int
) -> tuple[int, int]:
    """the router is left out: it has a direction for each expert"""
    return tuple(3 * dim * (width * n + shared_width) for n in (n_experts, n_active))


@listed("23.1", of="moe_params")
def two_matrices(
    dim: int, width: int, shared_width: int, n_experts: int, n_active: int
) -> tuple[int, int]:
    """an expert has two matrices: a SwiGLU has three"""
    return tuple(2 * dim * (width * n + shared_width) + dim * n_experts
                 for n in (n_experts, n_active))


@listed("23.1", of="moe_params")
def router_of_the_chosen(
    dim: int, width: int, shared_width: int, n_experts: int, n_active: int
) -> tuple[int, int]:
    """a token uses the directions of its own experts only: it is compared with all of them"""
    return tuple(3 * dim * (width * n + shared_width) + dim * n for n in (n_experts, n_active))


@listed("23.1", of="moe_params")
def shared_with_each_expert(
    dim: int, width: int, shared_width: int, n_experts: int, n_active: int
) -> tuple[int, int]:
    """the shared expert is counted once for each expert: a layer has one"""
    return tuple(3 * dim * (width + shared_width) * n + dim * n_experts
                 for n in (n_experts, n_active))


@listed("23.1", of="moe_params")
def shared_not_used(
    dim: int, width: int, shared_width: int, n_experts: int, n_active: int
) -> tuple[int, int]:
    """the shared expert is not counted among the used ones: every token goes through it"""
    return (3 * dim * (width * n_experts + shared_width) + dim * n_experts,
            3 * dim * width * n_active + dim * n_experts)


# --- 2: the effective number ----------------------------------------------------------------------


def _entropy(counts_E: Int[Tensor, "E"]) -> Tensor:
    shares_E = counts_E / counts_E.sum()
    return -torch.special.xlogy(shares_E, shares_E).sum()


@listed("23.2", of="n_effective")
def entropy_itself(counts_E: Int[Tensor, "E"]) -> float:
    """the result is the entropy, in nats, without the exponential function"""
    return float(_entropy(counts_E))


@listed("23.2", of="n_effective")
def entropy_in_bits(counts_E: Int[Tensor, "E"]) -> float:
    """the entropy is in bits, and e is raised to it: with bits, raise 2"""
    return float((_entropy(counts_E) / torch.tensor(2.0).log()).exp())


@listed("23.2", of="n_effective")
def unused_give_nan(counts_E: Int[Tensor, "E"]) -> float:
    """an unused expert makes it NaN, because 0 times the logarithm of 0 is not a number"""
    shares_E = counts_E / counts_E.sum()
    return float((-(shares_E * shares_E.log()).sum()).exp())


@listed("23.2", of="n_effective")
def inverse_of_squares(counts_E: Int[Tensor, "E"]) -> float:
    """it is 1 divided by the sum of the squares of the shares, another such number"""
    shares_E = counts_E / counts_E.sum()
    return float(1 / shares_E.square().sum())


@listed("23.2", of="n_effective")
def used_at_all(counts_E: Int[Tensor, "E"]) -> float:
    """every expert that is used at all counts as one"""
    return float((counts_E > 0).sum())


# --- 3: overflow ----------------------------------------------------------------------------------


def _room(counts_E: Int[Tensor, "E"], capacity: float) -> float:
    return capacity * float(counts_E.sum()) / len(counts_E)


@listed("23.3", of="overflow")
def in_copies(counts_E: Int[Tensor, "E"], capacity: float) -> float:
    """the result is a number of copies, and not their share of all copies"""
    return float((counts_E - _room(counts_E, capacity)).clamp(min=0).sum())


@listed("23.3", of="overflow")
def full_experts(counts_E: Int[Tensor, "E"], capacity: float) -> float:
    """it is the share of experts that are full, and not of copies without room"""
    return float((counts_E > _room(counts_E, capacity)).float().mean())


@listed("23.3", of="overflow")
def free_places(counts_E: Int[Tensor, "E"], capacity: float) -> float:
    """it counts free places in experts with room, and not copies that find none"""
    free = (_room(counts_E, capacity) - counts_E).clamp(min=0).sum()
    return float(free / counts_E.sum())


@listed("23.3", of="overflow")
def all_of_full_experts(counts_E: Int[Tensor, "E"], capacity: float) -> float:
    """all copies of a full expert are dropped: it keeps as many as fit"""
    is_full = counts_E > _room(counts_E, capacity)
    return float(counts_E[is_full].sum() / counts_E.sum())


@listed("23.3", of="overflow")
def room_of_all(counts_E: Int[Tensor, "E"], capacity: float) -> float:
    """free places of other experts are used: a copy can go to its own expert only"""
    over = counts_E.sum() - _room(counts_E, capacity) * len(counts_E)
    return float(over.clamp(min=0) / counts_E.sum())


# --- 4: copies in the order of their experts ------------------------------------------------------


@listed("23.4", of="sort_copies")
def copies_not_tokens(
    experts_NA: Int[Tensor, "N A"], n_experts: int
) -> tuple[list[int], list[int]]:
    """the list has the numbers of the copies: token n has the copies n A to n A + A - 1"""
    flat = experts_NA.flatten()
    return (flat.argsort(stable=True).tolist(),
            torch.bincount(flat, minlength=n_experts).tolist())


@listed("23.4", of="sort_copies")
def unused_left_out(
    experts_NA: Int[Tensor, "N A"], n_experts: int
) -> tuple[list[int], list[int]]:
    """experts after the last used one have no count: give bincount the number of experts"""
    flat = experts_NA.flatten()
    return ((flat.argsort(stable=True) // experts_NA.shape[1]).tolist(),
            torch.bincount(flat).tolist())


@listed("23.4", of="sort_copies")
def first_choices_only(
    experts_NA: Int[Tensor, "N A"], n_experts: int
) -> tuple[list[int], list[int]]:
    """only the first expert of each token is sorted and counted"""
    first = experts_NA[:, 0]
    return (first.argsort(stable=True).tolist(),
            torch.bincount(first, minlength=n_experts).tolist())


@listed("23.4", of="sort_copies")
def ends_not_counts(
    experts_NA: Int[Tensor, "N A"], n_experts: int
) -> tuple[list[int], list[int]]:
    """the second list has where each expert's copies end, and not how many they are"""
    flat = experts_NA.flatten()
    return ((flat.argsort(stable=True) // experts_NA.shape[1]).tolist(),
            torch.bincount(flat, minlength=n_experts).cumsum(0).tolist())


# --- 5: the gradient of the balancing loss --------------------------------------------------------


def _shares(logits_NE: Float[Tensor, "N E"]) -> tuple[Tensor, Tensor]:
    """Returns the probabilities, and the share of tokens that each expert gets."""
    n_tokens, n_experts = logits_NE.shape
    counts_E = torch.bincount(logits_NE.argmax(1), minlength=n_experts)
    return logits_NE.softmax(1), counts_E / n_tokens


@listed("23.5", of="balance_gradient")
def softmax_forgotten(logits_NE: Float[Tensor, "N E"]) -> Float[Tensor, "N E"]:
    """it is the gradient of the probabilities: the derivative of the softmax is left out"""
    probs_NE, shares_E = _shares(logits_NE)
    n_tokens, n_experts = logits_NE.shape
    return (n_experts / n_tokens) * shares_E.expand_as(probs_NE)


@listed("23.5", of="balance_gradient")
def mean_not_subtracted(logits_NE: Float[Tensor, "N E"]) -> Float[Tensor, "N E"]:
    """the mean of the shares is not subtracted: a larger logit lowers all other probabilities"""
    probs_NE, shares_E = _shares(logits_NE)
    n_tokens, n_experts = logits_NE.shape
    return (n_experts / n_tokens) * probs_NE * shares_E


@listed("23.5", of="balance_gradient")
def not_divided_by_tokens(logits_NE: Float[Tensor, "N E"]) -> Float[Tensor, "N E"]:
    """it is N times too large: P is a mean over the tokens"""
    return len(logits_NE) * _gradient(logits_NE)


@listed("23.5", of="balance_gradient")
def not_times_experts(logits_NE: Float[Tensor, "N E"]) -> Float[Tensor, "N E"]:
    """the factor E in front of the sum is left out"""
    return _gradient(logits_NE) / logits_NE.shape[1]


@listed("23.5", of="balance_gradient")
def uphill(logits_NE: Float[Tensor, "N E"]) -> Float[Tensor, "N E"]:
    """the sign is the other one: that is the direction in which the loss falls"""
    return -_gradient(logits_NE)


@listed("23.5", of="balance_gradient")
def shares_of_probabilities(logits_NE: Float[Tensor, "N E"]) -> Float[Tensor, "N E"]:
    """f is the mean probability: it is the share of tokens that really went to the expert"""
    probs_NE = logits_NE.softmax(1)
    n_tokens, n_experts = logits_NE.shape
    mean_E = probs_NE.mean(0)
    return (n_experts / n_tokens) * probs_NE * (mean_E - (probs_NE @ mean_E)[:, None])


def _gradient(logits_NE: Float[Tensor, "N E"]) -> Float[Tensor, "N E"]:
    probs_NE, shares_E = _shares(logits_NE)
    n_tokens, n_experts = logits_NE.shape
    return (n_experts / n_tokens) * probs_NE * (shares_E - (probs_NE @ shares_E)[:, None])
