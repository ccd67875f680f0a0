"""Common mistakes of readers in chapter 21."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


# --- 1: an image from its patches -----------------------------------------------------------------


def _joined(patches_PF: Tensor, patch_px: int, *, view: str, order: str) -> Tensor:
    """Returns the image of patches whose features are read in the order `view`.

    `order`: the axes of the result among "yx", the place of a patch, and `view`.
    """
    side = int(len(patches_PF) ** 0.5)
    sizes = {"y": side, "x": side, "c": 3, "i": patch_px, "j": patch_px}
    found = patches_PF.reshape([sizes[axis] for axis in "yx" + view])
    return found.permute([("yx" + view).index(axis) for axis in order]).reshape(
        3, side * patch_px, side * patch_px)


@listed("21.1", of="from_patches")
def color_last(patches_PF: Tensor, patch_px: int) -> Tensor:
    """the numbers of a patch are read pixel by pixel: they are stored color by color"""
    return _joined(patches_PF, patch_px, view="ijc", order="cyixj")


@listed("21.1", of="from_patches")
def column_by_column(patches_PF: Tensor, patch_px: int) -> Tensor:
    """the patches are placed column by column: they follow each other row by row"""
    return _joined(patches_PF, patch_px, view="cij", order="cxiyj")


@listed("21.1", of="from_patches")
def transposed_patches(patches_PF: Tensor, patch_px: int) -> Tensor:
    """rows and columns are exchanged inside each patch"""
    return _joined(patches_PF, patch_px, view="cij", order="cyjxi")


@listed("21.1", of="from_patches")
def only_reshaped(patches_PF: Tensor, patch_px: int) -> Tensor:
    """the numbers are reshaped, but not moved: a row of the image runs through several patches"""
    side_px = int(len(patches_PF) ** 0.5) * patch_px
    return patches_PF.reshape(3, side_px, side_px)


# --- 2: one row for each canvas -------------------------------------------------------------------


def _rows(
    grid_RCW: Tensor, aspect_ratios: Sequence[tuple[int, int]], *, is_transposed: bool = False,
    is_by_column: bool = False, has_id_0: bool = True,
) -> Tensor:
    J = len(grid_RCW)
    found = []
    for rows, columns in aspect_ratios:
        if is_transposed:
            rows, columns = columns, rows
        part = grid_RCW[:rows, :columns]
        used = (part.transpose(0, 1) if is_by_column else part).flatten(0, 1)
        found.append(F.pad(used, (0, 0, 0, J - len(used))))
    empty = torch.zeros(J, grid_RCW.shape[-1])
    return torch.stack([empty, *found] if has_id_0 else found)


@listed("21.2", of="expanded")
def without_id_0(grid_RCW: Tensor, aspect_ratios: Sequence[tuple[int, int]]) -> Tensor:
    """there is no row for id 0, the image of padding, so every id is off by one"""
    return _rows(grid_RCW, aspect_ratios, has_id_0=False)


@listed("21.2", of="expanded")
def id_0_at_the_end(grid_RCW: Tensor, aspect_ratios: Sequence[tuple[int, int]]) -> Tensor:
    """the row of zeros is the last one: it belongs to id 0, so it is the first one"""
    return _rows(grid_RCW, aspect_ratios).roll(-1, dims=0)


@listed("21.2", of="expanded")
def width_before_height(grid_RCW: Tensor, aspect_ratios: Sequence[tuple[int, int]]) -> Tensor:
    """a canvas is read as (columns, rows): it is (rows, columns)"""
    return _rows(grid_RCW, aspect_ratios, is_transposed=True)


@listed("21.2", of="expanded")
def tiles_by_column(grid_RCW: Tensor, aspect_ratios: Sequence[tuple[int, int]]) -> Tensor:
    """the tiles of a canvas are taken column by column: they follow each other row by row"""
    return _rows(grid_RCW, aspect_ratios, is_by_column=True)


@listed("21.2", of="expanded")
def first_of_the_grid(grid_RCW: Tensor, aspect_ratios: Sequence[tuple[int, int]]) -> Tensor:
    """the first vectors of the grid are taken for every canvas, without regard to its rows"""
    J = len(grid_RCW)
    row = grid_RCW.flatten(0, 1)[:J]
    found = [F.pad(row[:rows * columns], (0, 0, 0, J - rows * columns))
             for rows, columns in aspect_ratios]
    return torch.stack([torch.zeros_like(row), *found])


# --- 3: positions without a gate ------------------------------------------------------------------


def _mixed(in_tile: Tensor, in_canvas: Tensor, *, tile: Tensor, canvas: Tensor) -> Tensor:
    return tile * in_tile + canvas * in_canvas


@listed("21.3", of="folded")
def tanh_forgotten(in_tile: Tensor, in_canvas: Tensor, gate: Tensor) -> Tensor:
    """tanh is forgotten: the share is tanh(gate), not the gate"""
    return _mixed(in_tile, in_canvas, tile=1 - gate, canvas=gate)


@listed("21.3", of="folded")
def tile_not_reduced(in_tile: Tensor, in_canvas: Tensor, gate: Tensor) -> Tensor:
    """the place in the tile is added whole: its share is 1 - tanh(gate)"""
    return _mixed(in_tile, in_canvas, tile=torch.ones_like(gate), canvas=torch.tanh(gate))


@listed("21.3", of="folded")
def shares_exchanged(in_tile: Tensor, in_canvas: Tensor, gate: Tensor) -> Tensor:
    """the two shares are exchanged: a closed gate leaves the place in the tile"""
    return _mixed(in_tile, in_canvas, tile=torch.tanh(gate), canvas=1 - torch.tanh(gate))


@listed("21.3", of="folded")
def sigmoid_of_the_gate(in_tile: Tensor, in_canvas: Tensor, gate: Tensor) -> Tensor:
    """the share is sigmoid(gate): it is tanh(gate), which is 0 for a gate of 0"""
    return _mixed(in_tile, in_canvas, tile=1 - torch.sigmoid(gate), canvas=torch.sigmoid(gate))


# --- 4: who sees whom -----------------------------------------------------------------------------


@listed("21.4", of="visible_pairs")
def too_strict(is_empty_T: Tensor) -> Tensor:
    """every pair with an empty token is hidden: only pairs of two empty tokens are"""
    return ~(is_empty_T[:, None] | is_empty_T[None, :])


@listed("21.4", of="visible_pairs")
def empty_keys_hidden(is_empty_T: Tensor) -> Tensor:
    """all empty tokens are hidden from all tokens: real tokens do see them"""
    return (~is_empty_T)[None, :].expand(len(is_empty_T), -1).clone()


@listed("21.4", of="visible_pairs")
def empty_queries_blind(is_empty_T: Tensor) -> Tensor:
    """empty tokens see nothing: they do see real tokens"""
    return (~is_empty_T)[:, None].expand(-1, len(is_empty_T)).clone()


@listed("21.4", of="visible_pairs")
def hidden_is_true(is_empty_T: Tensor) -> Tensor:
    """True marks hidden pairs: in this task True marks visible pairs"""
    return is_empty_T[:, None] & is_empty_T[None, :]


# --- 5: states from features ----------------------------------------------------------------------


@listed("21.5", of="states_of")
def state_by_state(features: Tensor, width: int) -> list[Tensor]:
    """the earlier states are read one after the other: they are interleaved, channel by channel"""
    return list(features.split(width, dim=-1))


@listed("21.5", of="states_of")
def last_state_last(features: Tensor, width: int) -> list[Tensor]:
    """the last state is read from the end: it comes first in the features"""
    n = features.shape[-1] // width - 1
    return [*features[..., :n * width].unflatten(-1, (width, n)).unbind(-1),
            features[..., n * width:]]


@listed("21.5", of="states_of")
def all_interleaved(features: Tensor, width: int) -> list[Tensor]:
    """all features are read as interleaved: the first `width` of them are the last state"""
    return list(features.unflatten(-1, (width, -1)).unbind(-1))


@listed("21.5", of="states_of")
def last_state_returned_last(features: Tensor, width: int) -> list[Tensor]:
    """the states are given in the wrong order: the result begins with the last state"""
    n = features.shape[-1] // width - 1
    early = features[..., width:].unflatten(-1, (width, n)).unbind(-1)
    return [*early, features[..., :width]]
