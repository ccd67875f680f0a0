"""Llama 4's image processor of transformers, run without torchvision.

Its source is read and executed with stand-ins for three functions of torchvision: resizing,
padding and normalizing, which PyTorch computes. All its own functions are as released.
"""

import ast
import functools
import importlib.util
import math
import types
from collections import defaultdict
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers.image_processing_utils import BatchFeature
from transformers.image_transforms import (
    group_images_by_shape,
    reorder_images,
    split_to_tiles,
)
from transformers.image_utils import SizeDict


def _resized(image, size):
    height, width = int(size.height), int(size.width)
    # PyTorch 2.13 gives other values for one column than for the same image as one row, and only
    # the row equals Pillow. So one column is resized as a row.
    if is_column := width == 1:
        image, height, width = image.transpose(-1, -2), width, height
    found = F.interpolate(image.float().contiguous(), (height, width), mode="bilinear",
                          antialias=True)
    found = found.transpose(-1, -2) if is_column else found
    return found.round().clamp(0, 255).to(torch.uint8)


def _padded(image, padding, fill):
    left, top, right, bottom = padding
    assert set(fill) == {0}
    return F.pad(image, (left, right, top, bottom))


def _normalized(image, mean, std):
    mean, std = (torch.tensor(values, dtype=image.dtype)[:, None, None] for values in (mean, std))
    return (image - mean) / std


@functools.cache
def _released():
    """The processor's functions and its two methods, by name."""
    folder = Path(importlib.util.find_spec("transformers").origin).parent
    source = (folder / "models/llama4/image_processing_llama4.py").read_text()
    tree = ast.parse(source)
    methods = [node for parent in tree.body if isinstance(parent, ast.ClassDef)
               for node in parent.body if isinstance(node, ast.FunctionDef)
               and node.name in ("rescale_and_normalize", "_preprocess")]
    kept = [node for node in tree.body if isinstance(node, ast.FunctionDef)] + methods
    for node in kept:
        node.returns, node.decorator_list = None, []
        for argument in [*node.args.args, *node.args.kwonlyargs, node.args.kwarg]:
            if argument is not None:
                argument.annotation = None
    names = dict(torch=torch, math=math, defaultdict=defaultdict, SizeDict=SizeDict,
                 BatchFeature=BatchFeature, group_images_by_shape=group_images_by_shape,
                 reorder_images=reorder_images, split_to_tiles=split_to_tiles,
                 tvF=types.SimpleNamespace(pad=_padded))
    exec(compile(ast.Module(body=kept, type_ignores=[]), "released", "exec"), names)
    return names


def canvas(height, width, *, size_px, max_tiles, fills_canvas=False):
    """The (rows, columns) that the released rule gives."""
    names = _released()
    grids = torch.tensor(names["find_supported_resolutions"](
        max_num_chunks=max_tiles, patch_size=SizeDict(height=size_px, width=size_px)))
    best = names["get_best_fit"]((height, width), grids, resize_to_max_canvas=fills_canvas)
    return tuple((best // size_px).tolist())


def tiles(array, *, size_px, max_tiles, fills_canvas=False, in_bf16=True):
    """The grid and the normalized tiles that the released processor makes of an array."""
    names = _released()

    def rescale_and_normalize(images, *settings):
        if not in_bf16:
            return (images.float() / 255 - 0.5) / 0.5
        return names["rescale_and_normalize"](processor, images, *settings)

    processor = types.SimpleNamespace(
        resize=lambda image, size, resample=None: _resized(image, size),
        normalize=_normalized,
        rescale_and_normalize=rescale_and_normalize)
    found = names["_preprocess"](
        processor, [torch.from_numpy(array).permute(2, 0, 1)], do_resize=True,
        size=SizeDict(height=size_px, width=size_px), resample=None, do_rescale=True,
        rescale_factor=1 / 255, do_normalize=True, image_mean=[0.5] * 3, image_std=[0.5] * 3,
        max_patches=max_tiles, resize_to_max_canvas=fills_canvas, disable_grouping=False,
        return_tensors="pt")
    return tuple(found["aspect_ratios"][0].tolist()), found["pixel_values"].float()
