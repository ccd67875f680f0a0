"""Common mistakes of readers in chapter 22."""

from collections.abc import Sequence

import torch
from torch import Tensor

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


# --- 1: the range of tokens that see an image -----------------------------------------------------


def _ranges(
    is_image: Sequence[bool], *, has_runs: bool = True, is_run_start: bool = False
) -> list[tuple[int, int]]:
    """Returns the ranges. `has_runs`: adjacent images share their end; `is_run_start`: and start.
    """
    found, n = [], len(is_image)
    for image in (t for t in range(n) if is_image[t]):
        start, end = image, image + 1
        while has_runs and end < n and is_image[end]:
            end += 1
        while end < n and not is_image[end]:
            end += 1
        while is_run_start and start and is_image[start - 1]:
            start -= 1
        found.append((start, end))
    return found


@listed("22.1", of="ranges")
def without_runs(is_image: Sequence[bool]) -> list[tuple[int, int]]:
    """a range ends at the next image token, also if that follows directly"""
    return _ranges(is_image, has_runs=False)


@listed("22.1", of="ranges")
def runs_share_their_start(is_image: Sequence[bool]) -> list[tuple[int, int]]:
    """all images of a run begin at its first token, so a token sees images that come after it"""
    return _ranges(is_image, is_run_start=True)


@listed("22.1", of="ranges")
def without_its_own_token(is_image: Sequence[bool]) -> list[tuple[int, int]]:
    """a range begins after the image token, which sees its image too"""
    return [(start + 1, end) for start, end in _ranges(is_image)]


@listed("22.1", of="ranges")
def end_included(is_image: Sequence[bool]) -> list[tuple[int, int]]:
    """the end is the last token that sees the image, and not the one after it"""
    return [(start, end - 1) for start, end in _ranges(is_image)]


@listed("22.1", of="ranges")
def never_replaced(is_image: Sequence[bool]) -> list[tuple[int, int]]:
    """every range goes on to the end of the text, so later images do not replace earlier ones"""
    return [(start, len(is_image)) for start, _ in _ranges(is_image)]


# --- 2: bytes of an image -------------------------------------------------------------------------


@listed("22.2", of="image_bytes")
def only_keys(
    n_blocks: int, n_tiles: int, n_patches: int, n_kv_heads: int, head_dim: int,
    bytes_per_value: int,
) -> int:
    """only the keys are counted: the values are kept, too"""
    return n_blocks * n_tiles * (n_patches + 1) * n_kv_heads * head_dim * bytes_per_value


@listed("22.2", of="image_bytes")
def without_class_token(
    n_blocks: int, n_tiles: int, n_patches: int, n_kv_heads: int, head_dim: int,
    bytes_per_value: int,
) -> int:
    """the class token of each tile is left out"""
    return 2 * n_blocks * n_tiles * n_patches * n_kv_heads * head_dim * bytes_per_value


@listed("22.2", of="image_bytes")
def one_class_token(
    n_blocks: int, n_tiles: int, n_patches: int, n_kv_heads: int, head_dim: int,
    bytes_per_value: int,
) -> int:
    """there is one class token for the image: each tile has its own"""
    return 2 * n_blocks * (n_tiles * n_patches + 1) * n_kv_heads * head_dim * bytes_per_value


@listed("22.2", of="image_bytes")
def in_bits(
    n_blocks: int, n_tiles: int, n_patches: int, n_kv_heads: int, head_dim: int,
    bytes_per_value: int,
) -> int:
    """the result is in bits"""
    return 8 * 2 * n_blocks * n_tiles * (n_patches + 1) * n_kv_heads * head_dim * bytes_per_value


@listed("22.2", of="image_bytes")
def for_one_block(
    n_blocks: int, n_tiles: int, n_patches: int, n_kv_heads: int, head_dim: int,
    bytes_per_value: int,
) -> int:
    """only one block is counted: each block keeps keys and values of its own"""
    return 2 * n_tiles * (n_patches + 1) * n_kv_heads * head_dim * bytes_per_value


# --- 3: places in one list ------------------------------------------------------------------------


def _places(
    n_layers: int, cross_layers: Sequence[int], *, is_after: bool = False
) -> tuple[list[int], list[int]]:
    of_blocks, of_layers, place = [], [], 0
    for layer in range(n_layers):
        kinds = [of_layers]
        if layer in cross_layers:
            kinds.insert(len(kinds) if is_after else 0, of_blocks)
        for kind in kinds:
            kind.append(place)
            place += 1
    return of_blocks, of_layers


@listed("22.3", of="places")
def block_after_its_layer(
    n_layers: int, cross_layers: Sequence[int]
) -> tuple[list[int], list[int]]:
    """the block comes after its text layer: it comes before it"""
    return _places(n_layers, cross_layers, is_after=True)


@listed("22.3", of="places")
def numbers_not_moved(n_layers: int, cross_layers: Sequence[int]) -> tuple[list[int], list[int]]:
    """the blocks keep the numbers of their text layers: earlier blocks take places as well"""
    taken = list(cross_layers)
    return taken, [i for i in range(n_layers + len(taken)) if i not in taken]


@listed("22.3", of="places")
def instead_of_its_layer(
    n_layers: int, cross_layers: Sequence[int]
) -> tuple[list[int], list[int]]:
    """a block replaces its text layer: the layer is still there, one place later"""
    return list(cross_layers), [i for i in range(n_layers) if i not in cross_layers]


@listed("22.3", of="places")
def lists_exchanged(n_layers: int, cross_layers: Sequence[int]) -> tuple[list[int], list[int]]:
    """the two lists are exchanged: the places of the blocks come first"""
    return _places(n_layers, cross_layers)[::-1]


# --- 4: a row for training ------------------------------------------------------------------------


@listed("22.4", of="training_row")
def targets_not_shifted(prompt: list[int], answer: list[int]) -> tuple[list[int], list[int]]:
    """each target is the token itself: it must be the token that follows"""
    return prompt + answer[:-1], [-100] * len(prompt) + answer[:-1]


@listed("22.4", of="training_row")
def prompt_is_learned(prompt: list[int], answer: list[int]) -> tuple[list[int], list[int]]:
    """the prompt's tokens are targets, too, also those that stand for images"""
    return prompt + answer[:-1], prompt[1:] + answer


@listed("22.4", of="training_row")
def first_token_lost(prompt: list[int], answer: list[int]) -> tuple[list[int], list[int]]:
    """the first token of the answer is no target"""
    return prompt + answer[:-1], [-100] * len(prompt) + answer[1:]


@listed("22.4", of="training_row")
def last_token_read(prompt: list[int], answer: list[int]) -> tuple[list[int], list[int]]:
    """the last token of the answer is read, although nothing follows it"""
    return prompt + answer, [-100] * (len(prompt) - 1) + answer + [-100]


# --- 5: the gradient of a gate --------------------------------------------------------------------


@listed("22.5", of="gate_gradient")
def tanh_forgotten(grad_BTD: Tensor, y_BTD: Tensor, gate: Tensor) -> Tensor:
    """the derivative of tanh is left out"""
    return (grad_BTD * y_BTD).sum() * torch.ones_like(gate)


@listed("22.5", of="gate_gradient")
def gate_squared(grad_BTD: Tensor, y_BTD: Tensor, gate: Tensor) -> Tensor:
    """the derivative of tanh is written as 1 - gate², without the tanh"""
    return (grad_BTD * y_BTD).sum() * (1 - gate**2)


@listed("22.5", of="gate_gradient")
def tanh_as_derivative(grad_BTD: Tensor, y_BTD: Tensor, gate: Tensor) -> Tensor:
    """the gradient is multiplied by tanh(gate): that is the gradient of y, and it is 0 at the start
    """
    return (grad_BTD * y_BTD).sum() * torch.tanh(gate)


@listed("22.5", of="gate_gradient")
def mean_of_all(grad_BTD: Tensor, y_BTD: Tensor, gate: Tensor) -> Tensor:
    """the mean is taken where the sum belongs"""
    return (grad_BTD * y_BTD).mean() * (1 - torch.tanh(gate) ** 2)


@listed("22.5", of="gate_gradient")
def without_y(grad_BTD: Tensor, y_BTD: Tensor, gate: Tensor) -> Tensor:
    """y is left out: only the gradient that arrives is added up"""
    return grad_BTD.sum() * (1 - torch.tanh(gate) ** 2)
