"""Turns any image into 8-bit RGB, upright and without transparency.

An image may be a path, the bytes of a file, a Pillow image or an array. The same image gives the
same pixels in each of these forms. Pillow decodes and resizes. A file is checked before its pixels
are decoded, because a file of a few kilobytes can describe an image of many gigabytes.

Notebook 20. Llama 3.2 Vision is the first Llama that sees.
"""

import contextlib
import io
import os
import struct
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8, UInt16

from llama_from_scratch import foreign

MAX_PIXELS = 1 << 26
"""How many pixels an image may have: 67 million, which take 268 MB when they are decoded."""
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF")
"""The formats that are read, by Pillow's names. A vector format would run another program."""
TRANSPARENCIES = ("white", "dropped")
"""What happens to transparent pixels, see `decoded`."""

_ORIENTATION = 0x0112  # the EXIF tag
_N_LINES = 256
_SIGNS = {b"\x89PNG": "a damaged PNG", b"\xff\xd8\xff": "a damaged JPEG", b"GIF8": "a damaged GIF",
          b"RIFF": "a RIFF file that is no whole WebP", b"II*\0": "a damaged TIFF",
          b"MM\0*": "a damaged TIFF", b"BM": "a damaged BMP", b"%PDF": "a PDF",
          b"%!PS": "PostScript"}
# What Pillow's readers raise for damaged files, beyond the OSError and SyntaxError that are meant.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError,
           AssertionError, ArithmeticError, RuntimeError, MemoryError, struct.error)


def decoded(source: object, *, transparency: str = "white") -> Any:
    """Returns an image as a Pillow image in RGB, upright as its EXIF orientation says.

    `source`: a path, the bytes of a file, a Pillow image, or an array of uint8 or uint16 of shape
    (height, width) or (height, width, channels) with 1 to 4 channels: gray, gray and alpha, RGB,
    RGBA. The upper 8 of 16 bits are kept. An animation gives its first frame, or the current frame
    of a Pillow image, and a warning. Color profiles are not applied.

    `transparency`: "white" blends transparent pixels with white, as transformers does; "dropped"
    makes them opaque, as Meta's code does, and transformers for an image that it opens itself.
    transformers also ignores the EXIF orientation of a Pillow image, and makes all values of
    16-bit gray above 254 white.

    Raises ValueError for anything that is no such image, is damaged, or is too large.
    """
    if transparency not in TRANSPARENCIES:
        raise ValueError(f"transparency must be one of {', '.join(map(repr, TRANSPARENCIES))}; got "
                         f"{foreign.shown(transparency)}")
    if isinstance(source, (str, os.PathLike)):
        data = _read(source)
        with foreign.naming(source):
            return _rgb(_opened(data), transparency)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _rgb(_opened(bytes(source)), transparency)
    if isinstance(source, np.ndarray):
        return _rgb(_from_array(source), transparency)
    if isinstance(source, _pillow().Image):
        return _rgb(source, transparency)
    cure = ("Pass a tensor of shape (3, height, width) as x.permute(1, 2, 0).numpy()"
            if isinstance(source, torch.Tensor) else "Pass an open file as file.read()")
    raise ValueError("an image must be a path, the bytes of a file, a Pillow image or an array; "
                     f"got {type(source).__name__}. {cure}")


def resized(
    image: Any, *, height_px: int, width_px: int
) -> UInt8[np.ndarray, "{height_px} {width_px} 3"]:
    """Returns the pixels of a Pillow image in RGB, resized as the released processor does it.

    Each new pixel is a weighted mean of old ones under a triangle, which is widened when an image
    becomes smaller. So all old pixels count, and fine patterns do not alias.
    """
    bilinear = _pillow().Resampling.BILINEAR
    return np.asarray(image.resize((width_px, height_px), resample=bilinear))


def _read(path: str | os.PathLike) -> bytes:
    text = os.fspath(path)
    if isinstance(text, str) and text.startswith(("http://", "https://", "data:")):
        raise ValueError("an image is read from a file on this machine; got the address "
                         f"{foreign.shown(text)}. Download it, and pass the path or the bytes")
    return foreign.read_bytes(path, need="an image needs an image file")


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        raise ValueError("images are decoded and resized with the package pillow, which is not "
                         f"installed ({error}). Run pip install pillow") from error
    return Image


def _opened(data: bytes) -> Any:
    """Returns the Pillow image of a file, of which only the header is decoded yet."""
    pillow = _pillow()
    pillow.init()
    readable = [name for name in FORMATS if name in pillow.OPEN]  # Pillow may be built without one
    try:
        with warnings.catch_warnings():  # `_check_size` has a lower limit than this warning
            warnings.simplefilter("ignore", pillow.DecompressionBombWarning)
            return pillow.open(io.BytesIO(data), formats=readable)
    except pillow.DecompressionBombError as error:
        raise ValueError(f"an image may have at most {MAX_PIXELS:,} pixels; "
                         f"{str(error).rstrip('.')}. If you trust the file, make a smaller copy of "
                         "it") from error
    except _DAMAGE as error:
        raise ValueError(f"an image must be a file of one of the formats {', '.join(readable)}; "
                         f"this is {_kind(data)}. Save or export it as PNG or JPEG, or download "
                         "it again") from error


def _kind(data: bytes) -> str:
    """Returns what a file that is no readable image seems to be, for an error message."""
    head = bytes(data[:1024])
    for sign, kind in _SIGNS.items():
        if head.startswith(sign):
            return kind
    if head[4:8] == b"ftyp":
        return f"a file of the kind {foreign.shown(head[8:12].decode('latin-1'))}, such as HEIC"
    if b"<svg" in head:
        return "an SVG, which describes shapes and no pixels"
    if not data:
        return "nothing (0 bytes)"
    try:
        return f"text, {foreign.shown(head.decode()[:30])}"
    except UnicodeDecodeError:
        return f"data that begins with {foreign.shown(head[:12])}"


def _from_array(array: np.ndarray) -> Any:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 2, 3, 4):
        raise ValueError("an array of pixels must have the shape (height, width) or (height, width,"
                         f" channels) with 1 to 4 channels; got {array.shape}. If the channels "
                         "are the first axis, pass np.moveaxis(x, 0, -1)")
    _check_size(*array.shape[:2])
    if array.dtype.kind != "u" or array.dtype.itemsize > 2:
        raise ValueError("an array of pixels must have the dtype uint8 or uint16, where 255 or "
                         f"65535 is white; got {array.dtype}. Convert numbers from 0 to 1 with "
                         "(x * 255).round().astype(np.uint8)")
    if array.dtype.itemsize == 2:
        array = _upper_bits(array)
    pixels = array[:, :, 0] if array.ndim == 3 and channels == 1 else array
    return _pillow().fromarray(np.ascontiguousarray(pixels))


def _upper_bits(array: UInt16[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Returns 16-bit pixels as 8-bit ones, in the way in which Pillow reads 16-bit RGB."""
    return (array >> 8).astype(np.uint8)


def _rgb(image: Any, transparency: str) -> Any:
    _check_size(image.height, image.width)
    with _whole():
        is_animated = getattr(image, "is_animated", False)  # only some of Pillow's classes have it
        image.load()
        turn = _turn(image)
    if is_animated:
        warnings.warn(f"this image has several frames; only frame {image.tell() + 1} is used. To "
                      "use another, pass a Pillow image after image.seek(n)", stacklevel=3)
    image = _eight_bits(image)
    with _whole():
        if turn is not None:
            image = image.transpose(turn)
        if image.has_transparency_data and transparency == "white":
            return _on_white(image)
        return image if image.mode == "RGB" else image.convert("RGB")


def _check_size(height_px: int, width_px: int) -> None:
    if not height_px or not width_px:
        raise ValueError(f"an image must have at least one pixel; got {height_px} x {width_px} "
                         "(height x width). Check how it was made")
    if height_px * width_px > MAX_PIXELS:
        raise ValueError(f"an image may have at most {MAX_PIXELS:,} pixels; got {height_px:,} x "
                         f"{width_px:,} (height x width). If you trust it, make a smaller copy of "
                         "it")


@contextlib.contextmanager
def _whole() -> Iterator[None]:
    """Raises ValueError for what Pillow raises when it decodes a damaged file."""
    try:
        yield
    except _DAMAGE as error:
        raise ValueError(f"an image must be whole; it cannot be decoded ({error}). Download or "
                         "save it again") from error


def _turn(image: Any) -> Any:
    """Returns the `Transpose` that makes an image upright, None if it is. Values beyond 8 are 1.

    Not ImageOps.exif_transpose, which also writes the EXIF data again and fails on what it cannot.
    """
    by_orientation = dict(enumerate((
        "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270",
        "TRANSVERSE", "ROTATE_90"), start=2))
    name = by_orientation.get(image.getexif().get(_ORIENTATION))
    return None if name is None else _pillow().Transpose[name]


def _eight_bits(image: Any) -> Any:
    """Returns a loaded image with at most 8 bits in a channel."""
    # Pillow opens 16-bit gray as "I;16", or from a PPM file as "I", where 65535 is white too.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        values = np.asarray(image).astype(np.uint16)
        gray = _pillow().fromarray(_upper_bits(values))
        if (transparent := image.info.get("transparency")) is not None:
            gray.putalpha(_pillow().fromarray((values != transparent).astype(np.uint8) * 255))
        return gray
    if image.mode in ("I", "F", "La", "RGBa"):
        raise ValueError("an image must have 8 or 16 bits in a channel, and alpha apart from the "
                         f"colors; got Pillow's mode {image.mode!r}, where it is not known which "
                         "value is white. Convert it to \"RGB\" yourself")
    return image


def _on_white(image: Any) -> Any:
    """Returns a transparent image in RGB, blended with white as the released processor does."""
    pillow = _pillow()
    flat = pillow.new("RGB", image.size)
    for top in range(0, image.height, _N_LINES):  # the four copies of each part are small this way
        bottom = min(top + _N_LINES, image.height)
        part = image.crop((0, top, image.width, bottom)).convert("RGBA")
        white = pillow.new("RGBA", part.size, (255, 255, 255, 255))
        flat.paste(pillow.alpha_composite(white, part).convert("RGB"), (0, top))
    return flat
