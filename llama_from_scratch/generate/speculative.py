"""A small model guesses the next few tokens, and the big one checks all guesses in one pass.

Reading several tokens at once costs less than reading them one by one, because the weights are
fetched once. Let p be the big model's distribution and q the small one's. A guess x is kept with
probability min(1, p(x) / q(x)). The first guess that is refused is replaced by a draw from
max(p - q, 0), divided by its sum. Every token then has the distribution that the big model alone
would give it, however bad the guesses are. Greedy decoding is the same rule with all probability on
one token.

Continues notebook 16. Sources: Leviathan et al., arXiv:2211.17192, section 2.3 and appendix A.1;
Chen et al., arXiv:2302.01318.
"""

from collections.abc import Iterator, Sequence, Set

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.generate.checks import check_limits, check_numbers, check_seed, check_stops
from llama_from_scratch.generate.sampling import GREEDY, Sampling, distribution, draw
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.vision.seeing import SeeingLlama


@record
class Round:
    """One pass of the big model: the ids that it added to the answer.

    The draft made `n_guessed` guesses, and the first `n_accepted` of them were kept.
    """

    ids: tuple[int, ...]
    n_guessed: int
    n_accepted: int


@record
class Speculation:
    """An answer and what it took, round by round."""

    ids: list[int]
    rounds: list[Round]

    @property
    def acceptance(self) -> float:
        """The fraction of guesses that were kept; 0 if there were none."""
        return (sum(r.n_accepted for r in self.rounds)
                / max(1, sum(r.n_guessed for r in self.rounds)))

    @property
    def tokens_per_pass(self) -> float:
        """The number of new ids per pass of the big model; without a draft it would be 1."""
        return len(self.ids) / len(self.rounds)


def generate_speculatively(
    model: Llama, prompt: Sequence[int], *, draft: Llama, n_guesses: int = 4,
    max_tokens: int | None = None, sampling: Sampling = GREEDY, seed: int = 0,
    stop_ids: Set[int] = frozenset(),
) -> Speculation:
    """Returns what `model` writes after the prompt, with the guesses of `draft`.

    Takes the arguments of `rounds`, and raises its errors.
    """
    found = list(rounds(model, prompt, draft=draft, n_guesses=n_guesses, max_tokens=max_tokens,
                        sampling=sampling, seed=seed, stop_ids=stop_ids))
    return Speculation(ids=[token for r in found for token in r.ids], rounds=found)


def rounds(
    model: Llama, prompt: Sequence[int], *, draft: Llama, n_guesses: int = 4,
    max_tokens: int | None = None, sampling: Sampling = GREEDY, seed: int = 0,
    stop_ids: Set[int] = frozenset(),
) -> Iterator[Round]:
    """Yields the answer of `model` in rounds, each as soon as the big model has read the guesses.

    A round has 1 to `n_guesses` + 1 ids, and may have fewer if a stop id ends the answer. Greedy
    decoding gives the ids that `generate` returns. Sampling gives ids from the same distribution,
    but other ids for the same seed. This is exact for real numbers. In floating point, reading
    several tokens at once adds in another order than reading one. So two logits that are equal up
    to the rounding of the dtype may change places, which is common with bfloat16. Nothing is
    guessed beyond the draft's context.
    Raises ValueError for models that see, for models of different vocabularies, for `n_guesses`
    below 1, and for everything that `generate` refuses.
    """
    for name, each in (("model", model), ("draft", draft)):
        if isinstance(each, SeeingLlama):
            raise ValueError(f"models that read only text can guess ahead; the {name} also sees. "
                             "Decode with generate(), or take its text model: vision.detach(model)")
    if draft.config.vocab_size != model.config.vocab_size:
        raise ValueError("the draft must have the same ids as the model; got vocabularies of "
                         f"{draft.config.vocab_size} and {model.config.vocab_size}. Take a draft "
                         "with the same tokenizer, usually a smaller model of the same family")
    if n_guesses < 1:
        raise ValueError(f"n_guesses must be at least 1; got {n_guesses}. "
                         "Without guesses, call generate")
    [limit], [stops] = (
        check_limits(model, [prompt], max_tokens), check_stops(model, [prompt], stop_ids))
    check_seed(seed, n_prompts=1)
    text, end, draft_context = list(prompt), len(prompt) + limit, draft.config.max_seq_len
    generator = torch.Generator().manual_seed(seed)
    big, small = (_Reader(model, sampling, max_seq_len=end),
                  _Reader(draft, sampling, max_seq_len=min(end, draft_context)))
    while len(text) < end:
        n = max(0, min(n_guesses, end - len(text) - 1, draft_context - len(text) + 1))
        guesses, guessed_from = [], []
        for _ in range(n):
            q_1V = small.read(text + guesses, n_last=1)
            guesses.append(draw(q_1V, _uniform(generator)).item())
            guessed_from.append(q_1V[0])
        p_TV = big.read(text + guesses, n_last=n + 1)
        new = judge(p_TV, guessed_from, guesses=guesses, generator=generator)
        n_accepted = len(new) - 1
        for reader in (big, small):
            reader.cache.truncate(min(reader.cache.length, len(text) + n_accepted))
        n_said = next((i for i, token in enumerate(new) if token in stops), len(new))
        text += new[:n_said]
        yield Round(ids=tuple(new[:n_said]), n_guessed=n, n_accepted=n_accepted)
        if n_said < len(new):
            return


def judge(
    p: Float[Tensor, "T V"], q: Sequence[Float[Tensor, "V"]], *, guesses: Sequence[int],
    generator: torch.Generator,
) -> list[int]:
    """Returns the guesses that are kept, and one more id from the big model.

    `p`: the big model's distribution in the place of each guess and after the last. `q`: the
    distribution that each guess was drawn from.
    """
    for i, (guess, q_V) in enumerate(zip(guesses, q, strict=True)):
        p_V, q_V = p[i], q_V.to(p.device)
        if _uniform(generator).item() * q_V[guess].item() >= p_V[guess].item():
            rest_V = (p_V - q_V).clamp(min=0)
            # p and q may be so close that rounding leaves nothing to draw from.
            rest_V = rest_V if rest_V.any() else p_V
            return [*guesses[:i], draw(rest_V[None], _uniform(generator)).item()]
    return [*guesses, draw(p[-1:], _uniform(generator)).item()]


def _uniform(generator: torch.Generator) -> Float[Tensor, "1"]:
    return torch.rand(1, generator=generator, dtype=torch.float64)


class _Reader:
    """A model and the cache of what it has read of the text so far."""

    def __init__(self, model: Llama, sampling: Sampling, *, max_seq_len: int) -> None:
        self._model, self._sampling = model, sampling
        self.cache = model.new_cache(batch_size=1, max_seq_len=max_seq_len)

    @torch.inference_mode()
    def read(self, text: list[int], *, n_last: int) -> Float[Tensor, "T V"]:
        """Returns the distribution of the id after each of the last `n_last` ids."""
        ids_1T = torch.tensor([text[self.cache.length :]], device=self._model.device)
        hidden_TD = self._model.hidden(ids_1T, cache=self.cache)[0, -n_last:]
        logits_TV = self._model.output(hidden_TD).float()
        check_numbers(logits_TV.amax(-1))
        return distribution(logits_TV, self._sampling, seen=self._seen(text, n_last))

    def _seen(self, text: list[int], n_last: int) -> Bool[Tensor, "T V"] | None:
        if self._sampling.repetition_penalty == 1.0:
            return None
        seen_TV = torch.zeros(n_last, self._model.config.vocab_size, dtype=torch.bool,
                              device=self._model.device)
        for t, seen_V in enumerate(seen_TV):
            seen_V[text[: len(text) - n_last + 1 + t]] = True
        return seen_TV
