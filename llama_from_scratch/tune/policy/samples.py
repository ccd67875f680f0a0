"""Groups of answers: several samples for each prompt, which differ only in what was drawn.

A prompt is read once. Its keys and values are then copied for each answer of its group, because an
answer never changes them. Each answer draws from a generator of its own. So it is the same whatever
the other answers, the other prompts and the size of the batch are.

Notebook 54.
"""

import dataclasses
from collections.abc import Sequence, Set

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.generate.batch import DecodingBatch, batch_of
from llama_from_scratch.generate.checks import Prompts, as_prompts, check_limits, check_stops
from llama_from_scratch.generate.sampling import Sampling, distribution, draw
from llama_from_scratch.model.transformer import Llama


@record
class SampledAnswer:
    """The ids that follow a prompt, with the id that ended them unless the answer was cut off.

    `log_probs`: of each id in nats, under the distribution that it was drawn from. `is_written`:
    whether the model wrote each id. Results of tools, for example, are only read. None if it wrote
    all of them.
    """

    ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    is_finished: bool
    is_written: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        n_marks = len(self.ids) if self.is_written is None else len(self.is_written)
        if {len(self.log_probs), n_marks} != {len(self.ids)}:
            raise ValueError("each id of an answer has a log-probability and says whether the "
                             f"model wrote it; got {len(self.ids)} ids, {len(self.log_probs)} "
                             f"log-probabilities and {n_marks} marks")
        if not any(self.written):
            raise ValueError("an answer has at least one id that the model wrote; got "
                             f"{len(self.ids)} ids, all of them only read")

    @property
    def written(self) -> tuple[bool, ...]:
        """Whether the model wrote each id."""
        return (True,) * len(self.ids) if self.is_written is None else self.is_written

    @property
    def text_ids(self) -> tuple[int, ...]:
        """The ids without the one that ended the answer."""
        return self.ids[:-1] if self.is_finished else self.ids


def groups(
    model: Llama, prompts: Prompts, *, n: int, max_tokens: int, stop_ids: Set[int],
    temperature: float = 1.0, seed: int = 0, first: int = 0, rows_at_once: int = 256,
) -> list[list[SampledAnswer]]:
    """Returns `n` answers to each prompt, each of at most `max_tokens` ids.

    There is no top-k and no top-p, because log-probabilities of a cut distribution are not those
    that a gradient can be taken of. `seed`: with it, answer j to prompt i always draws the same
    numbers. Prompts are counted from `first`. At most `rows_at_once` answers share a forward pass,
    or one whole group; they do not depend on it.
    Raises ValueError for prompts and limits that `generate` refuses, for a temperature that is not
    above 0, and for fewer than one answer.
    """
    prompts = as_prompts(prompts)
    check_limits(model, prompts, max_tokens)
    check_stops(model, prompts, stop_ids)
    if n < 1 or rows_at_once < 1:
        raise ValueError("a group has at least one answer, and at least one row goes through the "
                         f"model; got n={n} and rows_at_once={rows_at_once}")
    if not temperature > 0:
        raise ValueError("answers that differ are drawn at a temperature above 0; got "
                         f"{temperature}. For the likeliest answer, use generate with GREEDY")
    if seed < 0 or first < 0:
        raise ValueError(f"seed and first are 0 or more; got seed={seed} and first={first}")
    sampling, found = Sampling(temperature=temperature), []
    n_at_once = max(1, rows_at_once // n)
    for begin in range(0, len(prompts), n_at_once):
        some = prompts[begin : begin + n_at_once]
        generators = [_generator(seed, first + begin + i, j)
                      for i in range(len(some)) for j in range(n)]
        answers = _answers(model, some, n=n, max_tokens=max_tokens, stop_ids=stop_ids,
                           sampling=sampling, generators=generators)
        found += [answers[i : i + n] for i in range(0, len(answers), n)]
    return found


def _generator(seed: int, prompt: int, answer: int) -> torch.Generator:
    """Returns the generator of one answer. Hashing keeps neighbors from drawing alike."""
    state = np.random.SeedSequence((seed, prompt, answer)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


@torch.inference_mode()
def _answers(
    model: Llama, prompts: Sequence[Sequence[int]], *, n: int, max_tokens: int, stop_ids: Set[int],
    sampling: Sampling, generators: Sequence[torch.Generator],
) -> list[SampledAnswer]:
    """Returns `n` answers to each prompt, in the order of the prompts."""
    texts = [list(prompt) for prompt in prompts for _ in range(n)]
    ends = [len(text) + max_tokens for text in texts]
    log_probs: list[list[float]] = [[] for _ in texts]
    finished, live = set(), set(range(len(texts)))
    batch = batch_of(model, prompts, max_tokens=max_tokens, has_seen=False, cache=None)
    logits_BV = batch.logits(model)  # once for each prompt
    batch, logits_BV = _repeated(batch, n), logits_BV.repeat_interleave(n, dim=0)
    while True:
        drawn_B, log_probs_B = _drawn(logits_BV, sampling, [generators[b] for b in batch.rows])
        for b, token, log_prob in zip(batch.rows, drawn_B.tolist(), log_probs_B.tolist(),
                                      strict=True):
            if b not in live:
                continue
            texts[b].append(token)
            log_probs[b].append(log_prob)
            if token in stop_ids:
                finished.add(b)
            if token in stop_ids or len(texts[b]) == ends[b]:
                live.remove(b)
        if not live:
            break
        batch.append(drawn_B)
        batch.drop(live, texts=texts, ends=ends)
        logits_BV = batch.logits(model)
    return [SampledAnswer(ids=tuple(text[end - max_tokens :]), log_probs=tuple(log_probs[b]),
                          is_finished=b in finished)
            for b, (text, end) in enumerate(zip(texts, ends, strict=True))]


def _repeated(batch: DecodingBatch, n: int) -> DecodingBatch:
    """Returns the batch with `n` copies of each row, next to each other, and of what is cached."""
    slots = [slot for slot in range(len(batch.rows)) for _ in range(n)]
    is_padded = batch.positions is not None
    return dataclasses.replace(
        batch, rows=list(range(len(slots))), ids=batch.ids[slots, -1:],
        positions=batch.positions[slots, -1:] if is_padded else None,
        documents=batch.documents[slots, -1:] if is_padded else None,
        cache=batch.cache.copy(slots, max_seq_len=batch.cache.max_seq_len))


def _drawn(
    logits: Float[Tensor, "B V"], sampling: Sampling, generators: Sequence[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """Returns an id for each row, and its log-probability."""
    probs_BV = distribution(logits, sampling)
    uniform_B = torch.stack([torch.rand((), generator=each, dtype=torch.float64)
                             for each in generators])
    drawn_B = draw(probs_BV, uniform_B.to(logits.device))
    return drawn_B, probs_BV.gather(-1, drawn_B[:, None])[:, 0].log()
