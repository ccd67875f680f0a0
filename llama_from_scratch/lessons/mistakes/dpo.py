"""Mistakes that readers make in chapter 53."""

import math
from collections.abc import Sequence

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


@listed("53.1", of="pair_loss")
def beta_inside_the_log(chosen: float, rejected: float, beta: float) -> float:
    """beta multiplies the sigmoid: it multiplies the margin, inside"""
    return -math.log(beta / (1 + math.exp(-(chosen - rejected))))


@listed("53.1", of="pair_loss")
def swapped(chosen: float, rejected: float, beta: float) -> float:
    """the two answers are swapped: the margin is chosen minus rejected"""
    return math.log(1 + math.exp(beta * (chosen - rejected)))


@listed("53.1", of="pair_loss")
def without_beta(chosen: float, rejected: float, beta: float) -> float:
    """beta is forgotten: it multiplies the margin"""
    return math.log(1 + math.exp(-(chosen - rejected)))


@listed("53.2", of="pull")
def pull_without_beta(chosen: float, rejected: float, beta: float) -> float:
    """the factor beta in front is forgotten: it comes from the inner derivative"""
    return 1 / (1 + math.exp(beta * (chosen - rejected)))


@listed("53.2", of="pull")
def pull_of_the_right(chosen: float, rejected: float, beta: float) -> float:
    """the sign in the sigmoid is wrong: pairs that are already right would pull hardest"""
    return beta / (1 + math.exp(-beta * (chosen - rejected)))


@listed("53.2", of="pull")
def pull_on_the_rejected(chosen: float, rejected: float, beta: float) -> float:
    """this is the pull on the rejected answer: a step downhill raises the chosen one"""
    return -beta / (1 + math.exp(beta * (chosen - rejected)))


@listed("53.3", of="answer_log_prob")
def mean_of_tokens(log_probs: Sequence[float], is_counted: Sequence[bool]) -> float:
    """the mean over the tokens is returned: the log-probability of an answer is a sum"""
    kept = [p for p, counts in zip(log_probs, is_counted, strict=True) if counts]
    return sum(kept) / len(kept)


@listed("53.3", of="answer_log_prob")
def all_tokens(log_probs: Sequence[float], is_counted: Sequence[bool]) -> float:
    """all tokens are counted: the prompt, the header and the end are left out"""
    return sum(log_probs)


@listed("53.3", of="answer_log_prob")
def product_of_tokens(log_probs: Sequence[float], is_counted: Sequence[bool]) -> float:
    """the values are multiplied: probabilities multiply, their logarithms add up"""
    return math.prod(p for p, counts in zip(log_probs, is_counted, strict=True) if counts)
