"""Cuts images of any size into square tiles of one size, the only input that an encoder accepts.

An image gets a canvas of at most four tiles, such as 1 x 2 or 2 x 2: the one on which its size
changes least. It is resized to fit and placed at the top left. The rest of the canvas is black.
Then the pixels are normalized and cut into tiles. An aspect ratio id tells the encoder which canvas
it was. Images of several rows form one batch.

Letters: B batch, I images, J tiles per image. px is the edge of a tile in pixels.
Notebook 20. Introduced with Llama 3.2 Vision; Llama 4 cuts its tiles by the same rule.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from llama_from_scratch import foreign
from llama_from_scratch.config import record
from llama_from_scratch.vision import images
from llama_from_scratch.vision.shown_images import ShownImages, digest

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation of red, green and blue, from 0 to 1, in the released processors.

They come from CLIP, arXiv:2103.00020, whose encoder was trained on pixels normalized with them.
"""


@record
class Tiling:
    """How images are cut: what a model's encoder was trained with.

    `size_px`: the edge of a tile, 448 in the base model of 11B and 560 in the other three releases.
    `max_tiles`: per image. `mean`, `std`: of red, green and blue, where white is 1.
    """

    size_px: int
    max_tiles: int = 4
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD

    def __post_init__(self) -> None:
        check_tiling(self)


@record
class GridTiling:
    """How Llama 4 cuts images: up to `max_tiles` tiles, and one more that shows the whole image.

    It has the fields of `Tiling`. `fills_canvas`: as in `place`.
    """

    size_px: int
    max_tiles: int = 16
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    fills_canvas: bool = False

    def __post_init__(self) -> None:
        check_tiling(self)
        if not isinstance(self.fills_canvas, bool):
            raise ValueError("GridTiling.fills_canvas must be True or False; got "
                             f"{foreign.shown(self.fills_canvas)}")


def check_tiling(tiling: object) -> None:
    """Raises ValueError unless sizes, mean and deviation of a record can be used."""
    kind = type(tiling).__name__
    for name in ("size_px", "max_tiles"):
        value = getattr(tiling, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{kind}.{name} must be an int above 0; got {foreign.shown(value)}")
    for name in ("mean", "std"):
        if not _are_three_numbers(value := getattr(tiling, name)):
            raise ValueError(f"{kind}.{name} must be three finite numbers, for red, green and "
                             f"blue; got {foreign.shown(value)}")
    if min(tiling.std) <= 0:
        raise ValueError(f"{kind}.std is what pixels are divided by, so it must be above 0; got "
                         f"{tiling.std}")


def _are_three_numbers(value: object) -> bool:
    return (isinstance(value, tuple) and len(value) == 3
            and all(isinstance(each, (int, float)) and math.isfinite(each) for each in value))


@record
class Placement:
    """Where an image goes: a canvas of rows x columns tiles, and its size in pixels on it.

    `aspect_id`: the number of the canvas in `canvases`, which begins with 1.
    """

    rows: int
    columns: int
    height_px: int
    width_px: int
    aspect_id: int


@record
class TiledImages(ShownImages):
    """The images of a batch as an encoder reads them. Row b has its images first, then padding.

    `pixels`: normalized. Tiles that an image does not use, and images that fill up a row, are 0.
    `aspect_ids`: 1 for the first of `canvases`; 0 marks an image that fills up a row.
    """

    pixels: Float32[Tensor, "B I J 3 px px"]
    aspect_ids: Int64[Tensor, "B I"]

    def __post_init__(self) -> None:
        pixels, ids = self.pixels, self.aspect_ids
        if not isinstance(pixels, Tensor) or not isinstance(ids, Tensor):
            raise ValueError("TiledImages needs two tensors; got "
                             f"{type(pixels).__name__} and {type(ids).__name__}")
        if (pixels.ndim != 6 or pixels.shape[3] != 3 or pixels.shape[4] != pixels.shape[5]
                or ids.shape != pixels.shape[:2] or not pixels.numel()):
            raise ValueError("pixels must be (B, I, J, 3, px, px) with no axis empty, and aspect "
                             f"ids (B, I); got {tuple(pixels.shape)} and {tuple(ids.shape)}")
        if not pixels.is_floating_point() or ids.dtype != torch.int64:
            raise ValueError("pixels must be floats and aspect ids int64; got "
                             f"{pixels.dtype} and {ids.dtype}".replace("torch.", ""))
        largest = len(canvases(pixels.shape[2]))
        if not 0 <= int(ids.min()) <= int(ids.max()) <= largest:
            raise ValueError(f"with {pixels.shape[2]} tiles, aspect ids run from 0 (padding) to "
                             f"{largest}; got {foreign.shown(ids.tolist())}")
        if ((ids[:, :-1] == 0) & (ids[:, 1:] > 0)).any():
            raise ValueError("a row has its images first and then padding, aspect id 0; got "
                             f"{foreign.shown(ids.tolist())}")

    @property
    def n_tiles(self) -> Int64[Tensor, "B I"]:
        """Returns how many tiles each image uses; 0 for padding."""
        areas = [0] + [rows * columns for rows, columns in canvases(self.pixels.shape[2])]
        return torch.tensor(areas, device=self.aspect_ids.device)[self.aspect_ids]

    @property
    def n_images(self) -> Int64[Tensor, "B"]:
        """Returns how many images each row has."""
        return (self.aspect_ids > 0).sum(1)

    def after(self, n_images: int) -> "TiledImages":
        """Returns the images of each row without its first `n_images`; some must be left."""
        return TiledImages(pixels=self.pixels[:, n_images:],
                           aspect_ids=self.aspect_ids[:, n_images:])

    def digests(self) -> list[bytes]:
        """Returns a digest of each image of the first row, from its pixels."""
        return [digest(f"tiles of canvas {number}", pixels) for number, pixels
                in zip(self.aspect_ids[0].tolist(), self.pixels[0], strict=True) if number]

    @property
    def tile_mask(self) -> Bool[Tensor, "B I J"]:
        """Returns which tiles an encoder reads. The first one of a padding image is among them.

        The released processor does the same. Without any tile, a softmax would have no answer.
        """
        tiles = torch.arange(self.pixels.shape[2], device=self.aspect_ids.device)
        return tiles < self.n_tiles.clamp(min=1)[..., None]


def canvases(max_tiles: int) -> list[tuple[int, int]]:
    """Returns all (rows, columns) of at most `max_tiles` tiles; the first has aspect ratio id 1.

    canvases(4) == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1)]
    """
    return [(rows, columns) for rows in range(1, max_tiles + 1)
            for columns in range(1, max_tiles // rows + 1)]


def place(
    height_px: int, width_px: int, *, tiling: Tiling | GridTiling, fills_canvas: bool = False
) -> Placement:
    """Returns the canvas for an image of this size, and the size that it gets there.

    The canvas is the one to which an image would be enlarged least. If none can hold the image, it
    is the one for which the image shrinks least. If several are equal in this, it is the smallest.
    An image is enlarged only until it is one tile high or wide. An edge keeps at least one pixel:
    1 x 10,000 becomes 1 x 2,240 on four tiles of 560.

    `fills_canvas`: an image that fits on a canvas gets the one on which it can become largest, and
    is enlarged until it touches two opposite edges of it.

    Source: the image processor released with Llama 3.2 Vision. Arithmetic in float64, as in
    transformers; Meta computes in float32.
    """
    if height_px < 1 or width_px < 1:
        raise ValueError(f"an image must have at least one pixel; got {height_px} x {width_px} "
                         "(height x width)")
    grids = canvases(tiling.max_tiles)
    scales = [min(rows * tiling.size_px / height_px, columns * tiling.size_px / width_px)
              for rows, columns in grids]
    enlarging = [scale for scale in scales if scale >= 1]
    best = max if fills_canvas else min
    scale = best(enlarging) if enlarging else max(scales)
    equal = [grid for grid, its_scale in zip(grids, scales, strict=True) if its_scale == scale]
    rows, columns = min(equal, key=math.prod)
    new_height, new_width = _fitted(height_px, width_px, rows=rows, columns=columns,
                                    size_px=tiling.size_px, fills_canvas=fills_canvas)
    return Placement(rows=rows, columns=columns, height_px=new_height, width_px=new_width,
                     aspect_id=grids.index((rows, columns)) + 1)


def _fitted(
    height_px: int, width_px: int, *, rows: int, columns: int, size_px: int,
    fills_canvas: bool = False,
) -> tuple[int, int]:
    """Returns the (height, width) that an image gets on its canvas, its aspect ratio kept."""
    most_high, most_wide = rows * size_px, columns * size_px
    if not fills_canvas:
        # An image within its canvas keeps its size, unless both edges are shorter than a tile.
        most_high = min(max(height_px, size_px), most_high)
        most_wide = min(max(width_px, size_px), most_wide)
    if most_wide / width_px < most_high / height_px:
        return min(math.floor(height_px * (most_wide / width_px)) or 1, most_high), most_wide
    return most_high, min(math.floor(width_px * (most_high / height_px)) or 1, most_wide)


def cut(
    pixels: UInt8[np.ndarray, "height width 3"], *, rows: int, columns: int, size_px: int
) -> UInt8[np.ndarray, "tiles 3 {size_px} {size_px}"]:
    """Returns the tiles of a canvas row by row, with `pixels` at its top left and black elsewhere.

    Raises ValueError if they do not fit.
    """
    height, width, _ = pixels.shape
    if height > rows * size_px or width > columns * size_px:
        raise ValueError(f"a canvas of {rows} x {columns} tiles of {size_px} pixels holds at most "
                         f"{rows * size_px} x {columns * size_px}; got {height} x {width}")
    canvas = np.zeros((rows * size_px, columns * size_px, 3), np.uint8)
    canvas[:height, :width] = pixels
    grid = canvas.reshape(rows, size_px, columns, size_px, 3)
    return grid.transpose(0, 2, 4, 1, 3).reshape(rows * columns, 3, size_px, size_px)


def normalized_values(tiling: Tiling | GridTiling) -> Float32[np.ndarray, "3 256"]:
    """Returns what each of the 256 values of a pixel becomes, for red, green and blue.

    (value / 255 - mean) / std. The product with 1/255 is rounded from float64, and the rest is
    fp32, as in transformers: in another order some values differ in their last bit.
    """
    share = (np.arange(256) * (1 / 255)).astype(np.float32)
    mean, std = (np.array(each, np.float32)[:, None] for each in (tiling.mean, tiling.std))
    return (share - mean) / std


def split(
    rows: Sequence[Sequence[object]], tiling: Tiling, *, transparency: str = "white"
) -> TiledImages:
    """Returns the images of each row of a batch as tiles, padded to the row with most images.

    `rows`: for each row a list of images, also an empty one. An image is anything that
    `images.decoded` accepts, which also explains `transparency`. One image is decoded at a time.
    Raises ValueError if there is no image at all, and names row and image of one that is bad.
    """
    most = max(map(len, check_rows(rows)), default=0)
    if not most:
        raise ValueError(f"a batch of images needs at least one; got {len(rows)} rows without "
                         "any. Leave the images out for a batch of text")
    shape = (len(rows), most, tiling.max_tiles, 3, tiling.size_px, tiling.size_px)
    pixels = torch.zeros(shape)
    aspect_ids = torch.zeros(shape[:2], dtype=torch.int64)
    for b, row in enumerate(rows):
        for i, source in enumerate(row):
            with foreign.naming(f"image {i + 1} of row {b + 1}"):
                image = images.decoded(source, transparency=transparency)
            aspect_ids[b, i] = _fill(pixels[b, i], image, tiling)
    return TiledImages(pixels=pixels, aspect_ids=aspect_ids)


def check_rows(rows: Sequence[Sequence[object]]) -> Sequence[Sequence[object]]:
    """Returns `rows`. Raises ValueError unless they are a list with a list of images for each row.
    """
    if not (_is_list(rows) and all(map(_is_list, rows))):
        raise ValueError("images are given as a list of rows, and each row as a list of images;"
                         f" got {foreign.shown(rows)}. For one image: [[image]]")
    return rows


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple))


def _fill(pixels: Float32[Tensor, "J 3 px px"], image: object, tiling: Tiling) -> int:
    """Writes the tiles of an image into the first of `pixels`, and returns its aspect ratio id."""
    at = place(image.height, image.width, tiling=tiling)
    small = images.resized(image, height_px=at.height_px, width_px=at.width_px)
    tiles = cut(small, rows=at.rows, columns=at.columns, size_px=tiling.size_px)
    for color, values in enumerate(normalized_values(tiling)):
        pixels[: len(tiles), color] = torch.from_numpy(values[tiles[:, color]])
    return at.aspect_id
