"""Checks prompts, limits and stop ids before anything is generated.

A refusal comes before any work is done, and the code after these checks does not check again.

Notebook 16.
"""

import math
from collections.abc import Collection, Sequence, Set
from numbers import Integral

from jaxtyping import Float, Int
from torch import Tensor

from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.vision.seeing import SeeingLlama
from llama_from_scratch.vision.shown_images import ShownImages
from llama_from_scratch.vision.tiles import check_rows

Prompts = Sequence[Sequence[int]] | Sequence[int] | Int[Tensor, "B T"] | Int[Tensor, "T"]
"""Lists of ids, or a tensor with one prompt per row. One list of ids or one row is one prompt."""

GivenImages = ShownImages | Sequence[Sequence[object]]
"""The images of each prompt, as the model's `cut` or `encode` returns them, or as `cut` takes them:
a list for each prompt."""


def as_prompts(prompts: Prompts) -> list[list[int]]:
    """Returns the prompts as lists of ids.

    Raises ValueError for anything that is not ids, such as text.
    """
    if isinstance(prompts, Tensor):
        if prompts.ndim not in (1, 2) or prompts.is_floating_point() or prompts.is_complex():
            raise ValueError("prompts are integers of shape (B, T), or (T,) for one; got a tensor "
                             f"{tuple(prompts.shape)} of {prompts.dtype}")
        prompts = prompts.tolist()
    if isinstance(prompts, str) or not isinstance(prompts, Sequence):
        raise ValueError(f"prompts are lists of ids; got {prompts!r:.80}. Encode a text first: "
                         "tokenizer.encode(text, bos=True)")
    prompts = list(prompts)
    if prompts and all(_is_whole(item) for item in prompts):
        prompts = [prompts]
    return [_as_prompt(prompt, b) for b, prompt in enumerate(prompts)]


def _as_prompt(prompt: object, number: int) -> list[int]:
    ids = prompt.tolist() if isinstance(prompt, Tensor) else prompt
    is_list = isinstance(ids, Sequence) and not isinstance(ids, str | bytes)
    if not is_list or not all(_is_whole(item) for item in ids):
        raise ValueError(f"a prompt is a list of ids, which are ints; prompt {number} is "
                         f"{prompt!r:.80}. Encode a text first: tokenizer.encode(text, bos=True)")
    return [int(token) for token in ids]


def _is_whole(item: object) -> bool:
    return type(item) is int or (isinstance(item, Integral) and not isinstance(item, bool))


def check_limits(
    model: Llama, prompts: Sequence[Sequence[int]], max_tokens: int | Sequence[int] | None
) -> list[int]:
    """Returns how many tokens may follow each prompt.

    Raises ValueError for prompts or limits that the model cannot take.
    """
    context = model.config.max_seq_len
    if not prompts:
        raise ValueError("generate needs at least one prompt; got none")
    for b, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"a prompt needs at least one token; prompt {b} is empty. To begin "
                             "without a text, encode it with bos=True")
        check_ids(model, prompt, name=f"prompt {b}")
    limits = max_tokens if isinstance(max_tokens, Sequence) else [max_tokens] * len(prompts)
    if len(limits) != len(prompts):
        raise ValueError("max_tokens is one number for all prompts or one for each; "
                         f"got {len(limits)} for {len(prompts)} prompts")
    for prompt, limit in zip(prompts, limits, strict=True):
        if limit is not None and not _is_whole(limit):
            raise ValueError(f"max_tokens is a whole number; got {limit!r:.80}")
        if limit is not None and limit < 1:
            raise ValueError(f"max_tokens must be at least 1; got {short(limit)}")
        if (room := context - len(prompt)) < (limit or 1):
            raise ValueError(f"the model's context holds {context} tokens; a prompt of "
                             f"{len(prompt)} leaves room for {max(room, 0)}, not "
                             f"{short(limit or 1)}. Shorten the prompt or lower max_tokens")
    return [limit or context - len(prompt) for prompt, limit in zip(prompts, limits, strict=True)]


def as_images(
    model: Llama, prompts: Sequence[Sequence[int]], images: GivenImages | None
) -> tuple[list[list[int]], ShownImages | None]:
    """Returns the prompts as the model reads them, and their images.

    Images are cut, unless they are cut or encoded already. In the prompts they are written out,
    unless they are already.
    Raises ValueError unless the model sees, and each prompt has an id for each of its images.
    """
    prompts = [list(prompt) for prompt in prompts]
    if images is not None:
        check_sees(model)
    if not isinstance(model, SeeingLlama):
        return prompts, None
    is_cut = isinstance(images, ShownImages)
    n_images = [0] * len(prompts)
    if images is not None:
        model.refuse_unfit(images if is_cut else check_rows(images), n_rows=len(prompts))
        n_images = images.n_images.tolist() if is_cut else list(map(len, images))
    _check_counts(prompts, n_images, image_id=model.config.image_id)
    if not is_cut:
        images = model.cut(images) if any(n_images) else None
    if images is not None:
        prompts = model.written_out(prompts, images)
    check_places(model, prompts, images)
    return prompts, images


def check_places(
    model: Llama, prompts: Sequence[Sequence[int]], images: ShownImages | None
) -> None:
    """Raises ValueError unless each prompt has the places for what its images become."""
    if not isinstance(model, SeeingLlama):
        return
    n_places = [[]] * len(prompts) if images is None else model.n_places(images)
    for b, (prompt, expected) in enumerate(zip(prompts, n_places, strict=True)):
        if (n_ids := prompt.count(model.place_id)) != sum(expected):
            raise ValueError(f"a prompt has one id {model.place_id} for each token of its images; "
                             f"prompt {b} has {n_ids} of these ids, and its images have "
                             f"{sum(expected)} tokens. Give one id {model.config.image_id} for "
                             "each image, and generate writes the rest")


def check_sees(model: Llama) -> None:
    """Raises ValueError for a model that reads only text."""
    if not isinstance(model, SeeingLlama):
        raise ValueError("only a model that sees can be shown images, and this one reads text. "
                         "Load one that sees, such as meta-llama/Llama-3.2-11B-Vision-Instruct, or "
                         "leave the images out")


def _check_counts(
    prompts: Sequence[Sequence[int]], n_images: Sequence[int], *, image_id: int
) -> None:
    for b, (prompt, n) in enumerate(zip(prompts, n_images, strict=True)):
        if (n_ids := prompt.count(image_id)) != n:
            raise ValueError(f"a prompt has one id {image_id} in place of each of its images; "
                             f"prompt {b} has {n_ids} of these ids and {n} images. Give as many "
                             "images as ids")


def check_stops(
    model: Llama, prompts: Sequence[Sequence[int]], stop_ids: Set[int] | Sequence
) -> list[Set[int]]:
    """Returns the ids that end each prompt's answer. Raises ValueError for impossible ones."""
    stops = [stop_ids] * len(prompts) if isinstance(stop_ids, Set) else list(stop_ids)
    if not all(isinstance(stop, Set) for stop in stops):
        raise ValueError("stop_ids is a set of ids for all prompts or a list with one set for "
                         f"each; got {stop_ids}. A set is written {{2, 3}}")
    if len(stops) != len(prompts):
        raise ValueError("stop_ids is one set for all prompts or one for each; "
                         f"got {len(stops)} for {len(prompts)} prompts")
    for stop in stops:
        check_ids(model, stop, name="stop_ids")
    return stops


def check_ids(model: Llama, ids: Collection[int], *, name: str) -> None:
    """Raises ValueError for an id outside the vocabulary."""
    if unknown := [token for token in ids if not 0 <= token < model.config.n_ids]:
        raise ValueError(f"ids run from 0 to {model.config.n_ids - 1}; {name} holds "
                         f"{unknown[0]}. Is this the tokenizer that the model was trained with?")


def check_numbers(largest: Float[Tensor, "*T"]) -> None:
    """Raises ValueError unless the largest logit of each distribution is a finite number.

    Smaller ones may be -inf, which rules a token out. A NaN must count as largest, as `max` does.
    """
    if largest.isfinite().all():
        return
    if largest.isnan().any():
        raise ValueError("the model's logits hold a NaN, so no next token can be chosen. "
                         "Did training diverge, or is the dtype too small for the weights?")
    if (largest == math.inf).any():
        raise ValueError("the model's logits hold +inf, so no next token can be chosen. "
                         "Is the dtype too small for the weights?")
    raise ValueError("every token that may come next has the logit -inf, so none can be chosen. "
                     "Does a mask allow only what the model rules out?")


def check_seed(seed: int, *, n_prompts: int) -> None:
    """Raises ValueError if PyTorch cannot take a seed. Prompt b uses `seed` + b."""
    if not _is_whole(seed):
        raise ValueError(f"a seed is a whole number; got {seed!r:.80}")
    if not -2**63 <= seed <= 2**64 - n_prompts:
        raise ValueError("a seed has 64 bits, and prompt b uses seed + b, so seed is from -2**63 "
                         f"to 2**64 - {n_prompts}; got {short(seed)}")


def short(number: int) -> str:
    """Returns a whole number in decimal digits, or its number of bits if it is too long to read."""
    return f"{number}" if number.bit_length() < 128 else f"one of {number.bit_length():,} bits"
