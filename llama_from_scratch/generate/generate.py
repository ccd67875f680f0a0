"""The decoding loop: feed the prompt once, then draw and feed one token at a time.

Each token is drawn from the logits at the last position. With the KV cache, a step computes one
token instead of the whole text. Several prompts go through the model together. Prompts with a
complete answer leave the batch once they are half of it.

Notebook 16.
"""

import codecs
import math
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llama_from_scratch.generate.batch import batch_of
from llama_from_scratch.generate.checks import (
    GivenImages,
    Prompts,
    as_images,
    as_prompts,
    check_limits,
    check_numbers,
    check_places,
    check_seed,
    check_stops,
)
from llama_from_scratch.generate.prefix import PrefixCache
from llama_from_scratch.generate.sampling import GREEDY, Sampling, distribution, draw
from llama_from_scratch.model.kv_cache import KVCache
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece

LogitMask = Callable[[int, Sequence[int]], Bool[Tensor, "V"]]
"""A function that returns for each id whether it may come next.

Its arguments are the number of a prompt and all its ids so far: the prompt's and the answer's.
"""


def generate(
    model: Llama, prompts: Prompts, *, images: GivenImages | None = None,
    max_tokens: int | Sequence[int] | None = None, sampling: Sampling = GREEDY, seed: int = 0,
    stop_ids: Set[int] | Sequence = frozenset(), mask: LogitMask | None = None,
) -> list[list[int]]:
    """Returns the ids that the model writes after each prompt, without the id that stopped it.

    `prompts`: lists of ids, or a tensor (B, T). One list of ids, or a tensor (T,), is a single
    prompt, and the list returned has only its answer.
    `images`: for each prompt a list, such as [["photo.jpg"], []] for two prompts of which one has
    an image, or what the model's `cut` or `encode` makes of it. A prompt has the id `image_id` of
    the model's config in place of each image. A model that reads an image as many ids gets them
    all: they are written out, unless the prompt has them already.
    `max_tokens` and `stop_ids`: one for all prompts, or a list with one for each. `max_tokens` None
    means as many tokens as the model's context holds. `mask` rules ids out before `sampling` is
    applied. Row b draws with seed + b, so that a prompt gets the same answer in a batch as alone.
    Only the order of logits that are equal up to rounding may depend on the batch's size.
    Raises ValueError for an empty prompt, an id outside the vocabulary, a prompt that leaves no
    room for its tokens, a mask that allows nothing, more images than ids for them or fewer, images
    cut for another encoder, or images for a model that reads only text.
    """
    prompts = as_prompts(prompts)
    answers = [[] for _ in prompts]
    for tokens in steps(model, prompts, images=images, max_tokens=max_tokens, sampling=sampling,
                        seed=seed, stop_ids=stop_ids, mask=mask):
        for answer, token in zip(answers, tokens, strict=True):
            if token is not None:
                answer.append(token)
    return answers


def stream(
    model: Llama, prompt: Sequence[int], *, images: GivenImages | None = None,
    max_tokens: int | None = None, sampling: Sampling = GREEDY, seed: int = 0,
    stop_ids: Set[int] = frozenset(), mask: LogitMask | None = None,
    prefix: PrefixCache | None = None,
) -> Iterator[int]:
    """Yields the ids that `generate` would return for one prompt, each as soon as it is drawn.

    `prefix` keeps what was read. The next call with it feeds the model only what differs.
    """
    check_limits(model, [prompt], max_tokens)
    [prompt], images = as_images(model, [prompt], images)
    [max_tokens], cache = check_limits(model, [prompt], max_tokens), None
    if prefix is not None:
        cache, images = prefix.begin(model, prompt, images=images, max_tokens=max_tokens)
    tokens = (token for (token,) in steps(
        model, [prompt], images=images, max_tokens=max_tokens, sampling=sampling, seed=seed,
        stop_ids=stop_ids, mask=mask, cache=cache))
    yield from tokens if prefix is None else prefix.follow(prompt, tokens)


def stream_text(
    model: Llama, tokenizer: AnyTokenizer, *, prompt: str,
    max_tokens: int | None = None, sampling: Sampling = GREEDY, seed: int = 0,
) -> Iterator[str]:
    """Yields the model's continuation of a text, in the pieces of `text_of`.

    It ends at one of the tokenizer's `stop_ids`, or after `max_tokens`.
    """
    ids = tokenizer.encode(prompt, bos=tokenizer.adds_bos or not prompt)
    tokens = stream(model, ids, max_tokens=max_tokens, sampling=sampling, seed=seed,
                    stop_ids=tokenizer.stop_ids)
    yield from text_of(tokens, tokenizer, is_first=not prompt)


def until(stop: str | None, pieces: Iterable[str]) -> Iterator[str]:
    """Yields the pieces of a text before `stop`, or all of them if `stop` is None.

    An end that may be the beginning of `stop` is held back until the next pieces decide it.
    """
    held = ""
    for piece in pieces:
        if stop is None:
            yield piece
            continue
        text, found, _ = (held + piece).partition(stop)
        n_held = 0 if found else next(
            n for n in range(min(len(stop) - 1, len(text)), -1, -1) if text.endswith(stop[:n]))
        held = text[len(text) - n_held :]
        if ready := text[: len(text) - n_held]:
            yield ready
        if found:
            return
    if held:
        yield held


def text_of(
    tokens: Iterable[int], tokenizer: AnyTokenizer, *, is_first: bool = False
) -> Iterator[str]:
    """Yields the text of ids, in pieces that can be shown as the ids come.

    Special tokens are left out. A character of several bytes may be spread over tokens, so a piece
    is held back until its characters are complete. `is_first`: no text comes before this one, so
    the space that SentencePiece puts in front of every text is dropped.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    special = set(tokenizer.special_ids.values())
    for token in tokens:
        if token in special:
            continue
        data = tokenizer.decode_bytes([token])
        if is_first and data.startswith(b" ") and isinstance(tokenizer, SentencePiece):
            data = tokenizer.decode([token]).encode()
        is_first = False
        if piece := decoder.decode(data):
            yield piece
    if rest := decoder.decode(b"", final=True):
        yield rest


def steps(
    model: Llama, prompts: Sequence[Sequence[int]], *, max_tokens: int | Sequence[int] | None,
    sampling: Sampling, seed: int, stop_ids: Set[int] | Sequence, mask: LogitMask | None = None,
    cache: KVCache | None = None, images: GivenImages | None = None,
) -> Iterator[list[int | None]]:
    """Yields a list per decoding step: each prompt's new id, or None once it has stopped.

    Ends when every prompt has stopped.
    """
    for step in decode(model, prompts, images=images, max_tokens=max_tokens, sampling=sampling,
                       seed=seed, stop_ids=stop_ids, mask=mask, cache=cache):
        yield step.tokens


class Decoded(NamedTuple):
    """One decoding step: each prompt's new id, or None once it has stopped, and the logits.

    The logits are the model's own, without the mask. Row i belongs to prompt `rows[i]`.
    """

    tokens: list[int | None]
    rows: list[int]
    logits: Float[Tensor, "B V"]


def decode(
    model: Llama, prompts: Sequence[Sequence[int]], *, max_tokens: int | Sequence[int] | None,
    sampling: Sampling, seed: int, stop_ids: Set[int] | Sequence, mask: LogitMask | None = None,
    cache: KVCache | None = None, images: GivenImages | None = None,
) -> Iterator[Decoded]:
    """Yields the decoding steps, which all functions above use.

    `cache` may hold the beginning of a single prompt. Then only the rest is fed, `images` are only
    the rest's, and the prompt is as `as_images` returns it. Images go through the encoder once,
    before the first step.
    """
    limits, stops = check_limits(model, prompts, max_tokens), check_stops(model, prompts, stop_ids)
    if cache is None:
        prompts, images = as_images(model, prompts, images)
        limits = check_limits(model, prompts, max_tokens)  # images may have made them longer
    else:
        check_places(model, [prompt[cache.length :] for prompt in prompts], images)
    check_seed(seed, n_prompts=len(prompts))
    texts = [list(prompt) for prompt in prompts]
    ends = [len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=True)]
    generators = [torch.Generator().manual_seed(seed + b) for b in range(len(prompts))]
    batch = batch_of(model, prompts, max_tokens=max(limits),
                     has_seen=sampling.repetition_penalty != 1.0, cache=cache, images=images)
    live = set(batch.rows)
    while live:
        with torch.inference_mode():
            logits_BV = batch.logits(model)
            allowed_BV = logits_BV if mask is None else _masked(
                logits_BV, mask, rows=batch.rows, texts=texts, live=live)
            next_B = choose(allowed_BV, sampling, seen=batch.seen,
                            generators=[generators[b] for b in batch.rows])
        tokens = [None] * len(prompts)
        for b, token in zip(batch.rows, next_B.tolist(), strict=True):
            if b in live and token not in stops[b]:
                tokens[b] = token
                texts[b].append(token)
        live = {b for b in live if tokens[b] is not None}
        if live:
            yield Decoded(tokens, batch.rows, logits_BV)
        live = {b for b in live if len(texts[b]) < ends[b]}
        batch.append(next_B)
        batch.drop(live, texts=texts, ends=ends)


def _masked(
    logits_BV: Tensor, mask: LogitMask, *, rows: list[int], texts: list[list[int]], live: set[int]
) -> Float[Tensor, "B V"]:
    """Returns the logits, with -inf for each id that the mask rules out in a live prompt."""
    masked_BV = logits_BV.clone()
    for logits_V, b in zip(masked_BV, rows, strict=True):
        if b not in live:
            continue
        allowed_V = mask(b, texts[b])
        if not isinstance(allowed_V, Tensor):
            raise ValueError(f"a mask returns one bool for each of the {len(logits_V)} ids, as a "
                             f"tensor; got a {type(allowed_V).__name__} for prompt {b}")
        if allowed_V.dtype != torch.bool or allowed_V.shape != logits_V.shape:
            raise ValueError(f"a mask returns one bool for each of the {len(logits_V)} ids; got "
                             f"{allowed_V.dtype} of shape {tuple(allowed_V.shape)} for prompt {b}")
        if not allowed_V.any():
            raise ValueError(f"a mask must allow at least one id; for prompt {b} it allows none "
                             f"after {len(texts[b])} ids. To end the answer, allow a stop id")
        logits_V.masked_fill_(~allowed_V.to(logits_V.device), -math.inf)
    return masked_BV


def choose(
    logits: Float[Tensor, "B V"], sampling: Sampling, *, seen: Bool[Tensor, "B V"] | None,
    generators: list[torch.Generator],
) -> Int[Tensor, "B"]:
    """Returns the next id of each row.

    Greedy decoding takes the smallest id of several with equal logits.
    Raises ValueError if a row's largest logit is not a finite number.
    """
    if sampling == GREEDY:
        largest_B, best_B = logits.max(-1)
        check_numbers(largest_B)
        return best_B
    uniform_B = torch.stack([torch.rand((), generator=g, dtype=torch.float64) for g in generators])
    return draw(distribution(logits, sampling, seen=seen), uniform_B.to(logits.device))
