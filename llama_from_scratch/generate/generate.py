"""The loop that writes: feed the prompt once, then one token at a time, each drawn from the logits of the last.

The KV cache makes a step cost one token instead of the whole text. Prompts of unequal length are padded on the left, so
that all of them end, and go on, at the same slot; padding is a document that no real token sees.

Notebook 16.
"""

import codecs
from collections.abc import Iterator, Sequence, Set

import torch
from jaxtyping import Bool
from torch import Tensor

from llama_from_scratch.generate.prefix import PrefixCache
from llama_from_scratch.generate.sampling import GREEDY, Sampling, distribution, draw
from llama_from_scratch.model.kv_cache import KVCache
from llama_from_scratch.model.mask import padding_documents
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer


def generate(
    model: Llama, prompts: Sequence[Sequence[int]], *, max_tokens: int | None = None,
    sampling: Sampling = GREEDY, seed: int = 0, stop_ids: Set[int] = frozenset(),
) -> list[list[int]]:
    """What the model writes after each prompt, as ids, without the prompt and without the token that stopped it.

    `max_tokens` per prompt, None for as many as the model's context holds. Row b draws with seed + b, so that a batch
    writes what each prompt would get alone. Raises ValueError for an empty prompt, an id outside the vocabulary, or a
    prompt that leaves no room for `max_tokens`.
    """
    answers = [[] for _ in prompts]
    for step in steps(model, prompts, max_tokens=max_tokens, sampling=sampling, seed=seed, stop_ids=stop_ids):
        for answer, token in zip(answers, step):
            if token is not None:
                answer.append(token)
    return answers


def stream(
    model: Llama, prompt: Sequence[int], *, max_tokens: int | None = None,
    sampling: Sampling = GREEDY, seed: int = 0, stop_ids: Set[int] = frozenset(), prefix: PrefixCache | None = None,
) -> Iterator[int]:
    """The ids that `generate` would return for one prompt, each as soon as it is drawn.

    `prefix` remembers what it has read: the next call with it feeds the model only what differs.
    """
    max_tokens = _room(model, [prompt], max_tokens)
    cache = None if prefix is None else prefix.begin(model, prompt, max_tokens=max_tokens)
    tokens = (token for (token,) in steps(model, [prompt], max_tokens=max_tokens, sampling=sampling, seed=seed,
                                          stop_ids=stop_ids, cache=cache))
    yield from tokens if prefix is None else prefix.follow(prompt, tokens)


def stream_text(
    model: Llama, tokenizer: Tokenizer, *, prompt: str, max_tokens: int | None = None,
    sampling: Sampling = GREEDY, seed: int = 0,
) -> Iterator[str]:
    """The model's continuation of a text, piece by piece, until it ends the text itself. Special tokens are not shown.

    A character of several bytes may be spread over tokens; a piece is held back until its characters are whole.
    """
    ids = tokenizer.encode(prompt, bos=True)
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    special = set(tokenizer.special_ids.values())
    for token in stream(model, ids, max_tokens=max_tokens, sampling=sampling, seed=seed, stop_ids={tokenizer.eos_id}):
        if token not in special and (piece := decoder.decode(tokenizer.decode_bytes([token]))):
            yield piece
    if rest := decoder.decode(b"", final=True):
        yield rest


def steps(
    model: Llama, prompts: Sequence[Sequence[int]], *, max_tokens: int | None,
    sampling: Sampling, seed: int, stop_ids: Set[int], cache: KVCache | None = None,
) -> Iterator[list[int | None]]:
    """One list per decoding step: each row's new id, or None once that row has stopped. Ends when every row has.

    `cache` may hold the beginning of a single prompt; only the rest is fed.
    """
    max_tokens = _room(model, prompts, max_tokens)
    device, dtype = model.output.weight.device, model.output.weight.dtype
    lengths_B = torch.tensor([len(prompt) for prompt in prompts], device=device)
    width = int(lengths_B.max())
    ids_BT = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    is_padded = bool((lengths_B < width).any())
    documents_BT = padding_documents(lengths_B, width=width) if is_padded else None
    slots_T = torch.arange(width, device=device)
    positions_BT = (slots_T - (width - lengths_B)[:, None]).clamp(min=0) if is_padded else None
    is_penalized = sampling.repetition_penalty != 1.0  # only then does it matter what already occurred
    seen_BV = _occurring(ids_BT, width - lengths_B, vocab_size=model.config.vocab_size) if is_penalized else None
    generators = [torch.Generator().manual_seed(seed + b) for b in range(len(prompts))]
    if cache is None:
        cache = KVCache(model.config, batch_size=len(prompts), max_seq_len=width + max_tokens, dtype=dtype, device=device)
    ids_BT = ids_BT[:, cache.length :]
    is_live = [True] * len(prompts)
    for _ in range(max_tokens):
        with torch.inference_mode():
            hidden_BTD = model.hidden(ids_BT, positions=positions_BT, documents=documents_BT, cache=cache)
            logits_BV = model.output(hidden_BTD[:, -1]).float()
            next_B = _choose(logits_BV, sampling, seen=seen_BV, generators=generators)
        tokens = next_B.tolist()
        is_live = [live and token not in stop_ids for live, token in zip(is_live, tokens)]
        if not any(is_live):
            return
        yield [token if live else None for live, token in zip(is_live, tokens)]
        ids_BT = next_B[:, None]
        if is_penalized:
            seen_BV.scatter_(1, ids_BT, True)
        if is_padded:
            positions_BT, documents_BT = positions_BT[:, -1:] + 1, torch.zeros_like(ids_BT)


def _room(model: Llama, prompts: Sequence[Sequence[int]], max_tokens: int | None) -> int:
    """How many tokens may follow, once prompts and max_tokens are found possible."""
    context, vocab_size = model.config.max_seq_len, model.config.vocab_size
    if not prompts:
        raise ValueError("generate needs at least one prompt; got none")
    for b, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"a prompt needs at least one token to go on from; prompt {b} is empty. "
                             "Encode it with bos=True to begin from nothing")
        if unknown := [token for token in prompt if not 0 <= token < vocab_size]:
            raise ValueError(f"ids run from 0 to {vocab_size - 1}; prompt {b} holds {unknown[0]}. "
                             "Is this the tokenizer that the model was trained with?")
    room = context - max(len(prompt) for prompt in prompts)
    if max_tokens is not None and max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1; got {max_tokens}")
    if room < (max_tokens or 1):
        raise ValueError(f"the model's context holds {context} tokens; a prompt of {context - room} leaves room for "
                         f"{max(room, 0)}, not {max_tokens or 1}. Shorten the prompt or lower max_tokens")
    return max_tokens or room


def _occurring(ids_BT: Tensor, first_B: Tensor, *, vocab_size: int) -> Bool[Tensor, "B V"]:
    """Which ids stand in each row from its first real token on."""
    seen_BV = torch.zeros(len(ids_BT), vocab_size, dtype=torch.bool, device=ids_BT.device)
    for row, ids, first in zip(seen_BV, ids_BT, first_B.tolist()):
        row[ids[first:]] = True
    return seen_BV


def _choose(logits_BV: Tensor, sampling: Sampling, *, seen: Tensor | None, generators: list[torch.Generator]) -> Tensor:
    largest_B, best_B = logits_BV.max(-1)  # a NaN counts as largest
    if largest_B.isnan().any():
        raise ValueError("the model's logits hold a NaN, so no next token can be chosen. "
                         "Did training diverge, or is the dtype too small for the weights?")
    if sampling == GREEDY:
        return best_B
    uniform_B = torch.stack([torch.rand((), generator=g, dtype=torch.float64) for g in generators])
    return draw(distribution(logits_BV, sampling, seen=seen), uniform_B.to(logits_BV.device))
