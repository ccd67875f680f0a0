"""Judging what a model does: shares with their standard errors, pass@k, pass^k and win rates.

A figure without its error says little: with 160 answers, 50 % means 42 to 58 %. A model that draws
several answers is judged by whether one of k is right (pass@k, a programmer who may try) or all of
them are (pass^k, an agent who must be relied on). Both are computed from n >= k answers, exactly.

Notebook 50. Sources: pass@k, arXiv:2107.03374, section 2.1; pass^k, arXiv:2406.12045, section 3.
"""

import math
from collections.abc import Iterable, Sequence

from llama_from_scratch.config import record
from llama_from_scratch.generate.generate import generate
from llama_from_scratch.generate.sampling import GREEDY, Sampling
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.chat_format import ChatFormat, ChatTemplate, Message
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.tune.rows import by_length


@record
class Share:
    """How many of `n` cases are right. `value` is between 0 and 1, and `error` its standard error.

    The error is sqrt(p (1 - p) / n). For none or all it is not 0: then p is taken half a case off.
    """

    n_right: int
    n: int

    def __post_init__(self) -> None:
        if not 0 <= self.n_right <= self.n or self.n == 0:
            raise ValueError("a share counts at least one case, and not more right ones than cases;"
                             f" got {self.n_right} of {self.n}")

    @property
    def value(self) -> float:
        return self.n_right / self.n

    @property
    def error(self) -> float:
        p = min(max(self.value, 0.5 / self.n), 1 - 0.5 / self.n)
        return math.sqrt(p * (1 - p) / self.n)

    def __str__(self) -> str:
        return f"{100 * self.value:.0f} ± {100 * self.error:.0f} %"


def share(verdicts: Iterable[bool]) -> Share:
    """Returns the share of true verdicts. Raises ValueError if there is none."""
    verdicts = list(verdicts)
    return Share(n_right=sum(map(bool, verdicts)), n=len(verdicts))


@record
class Mean:
    """The mean of `n` numbers and its standard error."""

    value: float
    error: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.error:.2f}"


def mean(numbers: Iterable[float]) -> Mean:
    """Returns the mean of at least two numbers, with s / sqrt(n) as its error."""
    numbers = [float(number) for number in numbers]
    if len(numbers) < 2 or not all(map(math.isfinite, numbers)):
        raise ValueError("a mean with its error needs at least two finite numbers; got "
                         f"{numbers[:5]}")
    value = math.fsum(numbers) / len(numbers)
    variance = math.fsum((x - value) ** 2 for x in numbers) / (len(numbers) - 1)
    return Mean(value=value, error=math.sqrt(variance / len(numbers)), n=len(numbers))


def win_rate(scores: Sequence[float], baseline: Sequence[float]) -> Mean:
    """Returns how often a score is above the baseline's for the same case; a tie counts a half."""
    if len(scores) != len(baseline):
        raise ValueError("a win rate compares the same cases; got "
                         f"{len(scores)} scores and {len(baseline)} of the baseline")
    return mean(1.0 if a > b else 0.5 if a == b else 0.0
                for a, b in zip(scores, baseline, strict=True))


def pass_at_k(n: int, n_right: int, k: int) -> float:
    """Returns how likely at least one of k answers is right, drawn from n of which some are.

    1 - C(n - c, k) / C(n, k) for c right answers. Raises ValueError unless 1 <= k <= n.
    """
    _check_k(n, n_right, k)
    return 1.0 - math.comb(n - n_right, k) / math.comb(n, k)


def pass_hat_k(n: int, n_right: int, k: int) -> float:
    """Returns how likely all of k answers are right, drawn from n of which some are.

    C(c, k) / C(n, k) for c right answers. Raises ValueError unless 1 <= k <= n.
    """
    _check_k(n, n_right, k)
    return math.comb(n_right, k) / math.comb(n, k)


def _check_k(n: int, n_right: int, k: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"of n={n} answers, k can be 1 to {n}; got k={k}. Draw more answers")
    if not 0 <= n_right <= n:
        raise ValueError(f"of n={n} answers, 0 to {n} can be right; got {n_right}")


def ask(
    model: Llama, tokenizer: AnyTokenizer, requests: Sequence[str | Sequence[Message]],
    format: ChatFormat | ChatTemplate, *, system: str | None = None, max_tokens: int = 40,
    sampling: Sampling = GREEDY, seed: int = 0, batch_size: int = 64,
) -> list[str]:
    """Returns the model's answer to each request as text, without special tokens.

    `requests`: what a user says, or a dialog so far, which ends with what a user says. `system`: a
    message that comes before each. Requests of similar length go through the model together. An
    answer does not depend on the others, except for the order of logits that are equal up to
    rounding.
    """
    lead = [] if system is None else [Message(role="system", content=system)]
    dialogs = [[Message(role="user", content=each)] if isinstance(each, str) else each
               for each in requests]
    prompts = [format.encode([*lead, *dialog], tokenizer) for dialog in dialogs]
    stop_ids, answers = format.stop_ids(tokenizer), [""] * len(prompts)
    n_asked = 0
    for numbers in by_length(list(map(len, prompts)), batch_size=batch_size):
        # Each prompt draws with a seed of its own place, whatever its neighbors are.
        for i, ids in zip(numbers, generate(
                model, [prompts[i] for i in numbers], max_tokens=max_tokens, sampling=sampling,
                seed=seed + n_asked, stop_ids=stop_ids), strict=True):
            answers[i] = tokenizer.decode(ids).strip()
        n_asked += len(numbers)
    return answers
