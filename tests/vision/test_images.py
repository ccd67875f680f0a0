"""Every form of an image gives the same pixels, and every other input is refused in words."""

import io
import os
import random
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, PngImagePlugin
from transformers.image_transforms import convert_to_rgb
from transformers.image_utils import load_image

from llama_from_scratch.vision import images
from llama_from_scratch.vision.images import FORMATS, MAX_PIXELS, decoded, resized

ORIENTATION = 0x0112


def noise(height, width, channels=3, seed=0):
    shape = (height, width, channels) if channels else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def as_file(image, kind="PNG", **options):
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def pixels(source, **options):
    image = decoded(source, **options)
    assert image.mode == "RGB"
    return np.asarray(image)


# --- one image, many forms ------------------------------------------------------------------------


def test_a_path_bytes_a_pillow_image_and_an_array_give_the_same_pixels(tmp_path):
    array = noise(5, 7)
    data = as_file(array)
    (tmp_path / "a.png").write_bytes(data)
    sources = [array, Image.fromarray(array), data, bytearray(data), memoryview(data),
               tmp_path / "a.png", str(tmp_path / "a.png"), np.asfortranarray(array)]
    assert all(np.array_equal(pixels(source), array) for source in sources)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000"])
def test_a_format_without_loss_gives_what_was_written(kind):
    array = noise(6, 6).repeat(2, 0).repeat(2, 1)  # few colors, so that a GIF can hold them all
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(pixels(as_file(array, kind, **options)), array)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
def test_a_format_with_loss_gives_what_pillow_decodes(kind):
    data = as_file(noise(16, 24), kind)
    assert np.array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_every_listed_format_is_known_to_pillow():
    Image.init()
    assert set(FORMATS) <= set(Image.OPEN)


def test_an_image_of_the_caller_is_not_changed():
    array = noise(4, 4, channels=4)
    image = Image.fromarray(array)
    image.getexif()[ORIENTATION] = 6
    decoded(image)
    assert np.array_equal(np.asarray(image), array) and image.getexif()[ORIENTATION] == 6


# --- colors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr", "HSV",
                                  "LAB", "RGBX"])
def test_every_color_mode_becomes_what_the_released_processor_makes_of_it(mode):
    channels = 4 if mode in ("RGBA", "LA") else 3
    image = Image.fromarray(noise(9, 11, channels))
    image = image.convert("P").convert("PA") if mode == "PA" else image.convert(mode)
    assert image.mode == mode
    assert np.array_equal(pixels(image), convert_to_rgb(image, return_numpy=True))


def palette():
    return Image.fromarray(noise(6, 6)).convert("P")


def test_a_transparent_image_of_many_lines_is_blended_like_a_small_one():
    image = Image.fromarray(noise(600, 5, channels=4))
    assert np.array_equal(pixels(image), convert_to_rgb(image, return_numpy=True))


@pytest.mark.parametrize("make", [
    lambda: as_file(palette(), transparency=palette().getpixel((2, 3))),
    lambda: as_file(palette(), transparency=bytes(range(256))),
    lambda: as_file(Image.fromarray(noise(6, 6, channels=0)), transparency=int(
        noise(6, 6, channels=0)[0, 0])),
    lambda: as_file(noise(6, 6), transparency=tuple(map(int, noise(6, 6)[0, 0]))),
], ids=["a color of a palette", "the alpha of a palette", "a gray", "a color"])
@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_transparency_outside_of_an_alpha_channel_is_white_too(make):
    data = make()
    released = convert_to_rgb(Image.open(io.BytesIO(data)), return_numpy=True)
    assert np.array_equal(pixels(data), released)
    assert not np.array_equal(pixels(data), pixels(data, transparency="dropped"))


def test_transparent_pixels_are_white_or_keep_their_color_as_asked(tmp_path):
    clear = np.array([[[200, 100, 0, 0], [200, 100, 0, 255], [200, 100, 0, 51]]], np.uint8)
    assert pixels(clear).tolist() == [[[255] * 3, [200, 100, 0], [244, 224, 204]]]
    assert pixels(clear, transparency="dropped").tolist() == [[[200, 100, 0]] * 3]
    by_palette = Image.fromarray(clear).convert("P")  # Pillow keeps the alpha in the palette
    assert pixels(by_palette)[0, 0].tolist() == [255] * 3
    (tmp_path / "a.png").write_bytes(as_file(clear))
    released = load_image(str(tmp_path / "a.png"))  # drops, although its processor blends
    assert np.array_equal(pixels(clear, transparency="dropped"), np.asarray(released))


def test_the_upper_half_of_16_bits_is_kept_in_every_form():
    gray = np.array([[0, 255, 256, 40000, 65535]], np.uint16)
    expected = np.array([[0, 0, 1, 156, 255]], np.uint8)[..., None].repeat(3, 2)
    png = as_file(gray)
    assert Image.open(io.BytesIO(png)).mode == "I;16"
    pgm = b"P5 5 1 65535\n" + gray.astype(">u2").tobytes()
    tiff = as_file(Image.fromarray(gray), "TIFF")
    for source in (gray, gray[..., None], gray.astype(">u2"), Image.fromarray(gray), png, pgm,
                   tiff, gray[..., None].repeat(3, 2)):
        assert np.array_equal(pixels(source), expected)


def test_16_bit_gray_and_color_files_agree():
    values = np.random.default_rng(0).integers(0, 65536, (4, 5), dtype=np.uint16)
    color = values[..., None].repeat(3, 2)
    assert np.array_equal(pixels(png_of_16_bits(values)), pixels(png_of_16_bits(color)))


def test_a_transparent_value_of_16_bit_gray_is_white():
    values = np.array([[1000, 1001, 9000]], np.uint16)  # two have the same upper half
    clear = png_of_16_bits(values, transparent=1001)
    assert pixels(clear)[0, :, 0].tolist() == [3, 255, 35]
    assert pixels(clear, transparency="dropped")[0, :, 0].tolist() == [3, 3, 35]


def png_of_16_bits(array, transparent=None):
    """A PNG of 16 bits, gray or in color, which Pillow itself does not write."""
    height, width = array.shape[:2]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in array)
    header = (width.to_bytes(4) + height.to_bytes(4)
              + bytes([16, 0 if array.ndim == 2 else 2, 0, 0, 0]))
    clear = [] if transparent is None else [(b"tRNS", transparent.to_bytes(2))]
    chunks = [(b"IHDR", header), *clear, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)
        for kind, data in chunks)


def test_16_bit_gray_is_almost_white_in_transformers():
    # Held here as a difference that we want: Pillow saturates when it converts such an image.
    gray = Image.fromarray(np.array([[0, 200, 1000, 40000]], np.uint16))
    released = convert_to_rgb(gray, return_numpy=True)[0, :, 0]
    assert released.tolist() == [0, 200, 255, 255]
    assert pixels(gray)[0, :, 0].tolist() == [0, 0, 3, 156]


# --- which way is up, and which frame -------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_upright_as_transformers_turns_it(orientation, kind, tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / "a"
    path.write_bytes(as_file(noise(8, 16), kind, exif=exif))
    expected = np.asarray(load_image(str(path)))
    assert expected.shape[:2] == ((8, 16) if orientation < 5 else (16, 8))
    assert np.array_equal(pixels(path), expected)
    image = Image.open(path)
    assert np.array_equal(pixels(image), expected)
    turned = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    assert np.array_equal(pixels(path), turned)


@pytest.mark.parametrize("orientation", [0, 9, 60000])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert pixels(as_file(noise(8, 16), "JPEG", exif=exif)).shape == (8, 16, 3)


def animation(kind):
    frames = [Image.fromarray(np.full((4, 4, 3), value, np.uint8)) for value in (10, 120, 240)]
    options = {"lossless": True} if kind == "WEBP" else {}
    return as_file(frames[0], kind, save_all=True, append_images=frames[1:], **options)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame_and_a_warning(kind):
    with pytest.warns(UserWarning, match="several frames; only frame 1 is used. To use another"):
        first = pixels(animation(kind))
    assert np.array_equal(first, np.full((4, 4, 3), 10))


def test_an_animation_at_another_frame_gives_this_frame():
    image = Image.open(io.BytesIO(animation("GIF")))
    image.seek(2)
    with pytest.warns(UserWarning, match="only frame 3 is used"):
        assert np.array_equal(pixels(image), np.full((4, 4, 3), 240))


def test_a_still_image_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("GIF", "PNG", "WEBP", "TIFF", "JPEG"):
            decoded(as_file(noise(4, 4), kind))


# --- resizing -------------------------------------------------------------------------------------


def test_resizing_is_a_mean_under_a_triangle():
    line = np.array([[0, 40, 80, 200]], np.uint8)[..., None].repeat(3, 2)
    got = resized(Image.fromarray(line), height_px=1, width_px=2)[0, :, 0]
    # A new pixel is two old ones wide, so its triangle reaches 2 to each side of its center.
    weights = np.maximum(0, 1 - abs(np.arange(4) + 0.5 - np.array([[1], [3]])) / 2)
    expected = weights / weights.sum(1, keepdims=True) @ line[0, :, 0]
    assert got.tolist() == np.round(expected).tolist()


def test_resizing_to_the_same_size_changes_nothing():
    array = noise(5, 9)
    same = resized(Image.fromarray(array), height_px=5, width_px=9)
    assert np.array_equal(same, array)


# --- refusals -------------------------------------------------------------------------------------

SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
NO_IMAGE = {
    "an SVG named .png": (SVG, "this is an SVG, which describes shapes and no pixels. Save or"),
    "a text named .png": (b"hello, I am no image", "this is text, 'hello, I am no image'"),
    "a PDF": (b"%PDF-1.7 ...", "this is a PDF"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "this is PostScript"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "of the kind 'heic', such as HEIC"),
    "other bytes": (bytes(range(128, 160)), "this is data that begins with b'"),
    "only a signature": (b"\x89PNG\r\n\x1a\n", "this is a damaged PNG"),
    "a damaged header": (as_file(noise(4, 4))[:20], "this is a damaged PNG"),
    "the head of a JPEG": (as_file(noise(4, 4), "JPEG")[:30], "this is a damaged JPEG"),
}


@pytest.mark.parametrize("name", NO_IMAGE)
def test_a_file_that_is_no_image_is_refused_with_what_it_is(name, tmp_path):
    data, message = NO_IMAGE[name]
    path = tmp_path / "a.png"
    path.write_bytes(data)
    rule = "must be a file of one of the formats PNG, JPEG, "
    for source in (data, path):
        with pytest.raises(ValueError, match=f"(?s){rule}.*{message}.*as PNG or JPEG") as caught:
            decoded(source)
    assert str(path) in str(caught.value)


def test_empty_files_and_bytes_are_refused(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=r"an image needs an image file at .*a.png; it cannot be "
                                         r"read \(it is empty\)"):
        decoded(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"this is nothing \(0 bytes\)"):
        decoded(b"")


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, message in {"none.png": "it is missing", "": "there is a folder",
                          "pipe": "there is a pipe"}.items():
        with pytest.raises(ValueError, match=f"an image needs an image file at .*{message}"):
            decoded(tmp_path / name)


@pytest.mark.parametrize("address", ["https://example.org/a.png", "data:image/png;base64,iVBO"])
def test_an_address_is_refused(address):
    with pytest.raises(ValueError, match="from a file on this machine; got the address"):
        decoded(address)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "PPM", "WEBP", "AVIF"])
def test_a_truncated_file_is_refused(kind):
    data = as_file(noise(40, 40), kind)
    for length in (len(data) // 2, len(data) * 3 // 4):
        with pytest.raises(ValueError, match="must be whole; it cannot be decoded|is a damaged|"
                                             "no whole WebP|such as HEIC"):
            decoded(data[:length])


@pytest.mark.parametrize(("height", "width", "message"), [
    (8193, 8192, "got 8,193 x 8,192"), (1, MAX_PIXELS + 1, "got 1 x 67,108,865"),
    (10_000, 10_000, "got 10,000 x 10,000"), (40_000, 40_000, "1600000000 pixels"),
], ids=["just above", "one line", "where Pillow warns", "where Pillow refuses"])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(height, width, message):
    tiny = bytearray(as_file(noise(1, 1)))
    tiny[16:24] = width.to_bytes(4) + height.to_bytes(4)
    tiny[29:33] = zlib.crc32(tiny[12:29]).to_bytes(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=f"at most 67,108,864 pixels; .*{message}.* make a "
                                             "smaller copy"):
            decoded(bytes(tiny))


def test_an_array_above_the_limit_is_refused_and_one_of_the_limit_is_not(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 20)
    decoded(noise(4, 5))
    for source in (noise(3, 7), Image.fromarray(noise(3, 7))):
        with pytest.raises(ValueError, match="at most 20 pixels; got 3 x 7"):
            decoded(source)


def test_text_in_a_png_that_unpacks_to_gigabytes_is_refused():
    info = PngImagePlugin.PngInfo()
    info.add_text("bomb", "0" * (1 << 26), zip=True)
    with pytest.raises(ValueError, match="Decompressed|damaged PNG|cannot be decoded"):
        decoded(as_file(noise(2, 2), pnginfo=info))


@pytest.mark.parametrize(("array", "message"), [
    (np.zeros((3, 20, 30), np.uint8), r"got \(3, 20, 30\). If the channels are the first axis"),
    (np.zeros((1, 4, 4, 3), np.uint8), r"got \(1, 4, 4, 3\)"),
    (np.zeros(4, np.uint8), r"got \(4,\)"),
    (np.zeros((4, 4, 0), np.uint8), r"got \(4, 4, 0\)"),
    (np.zeros((4, 4)), r"uint8 or uint16, where 255 or 65535 is white; got float64.*Convert n"),
    (np.zeros((4, 4), bool), "got bool"), (np.zeros((4, 4), np.int64), "got int64"),
    (np.zeros((4, 4), np.uint32), "got uint32"),
    (np.zeros((0, 4, 3), np.uint8), r"at least one pixel; got 0 x 4 \(height x width\)"),
    (np.zeros((4, 0), np.uint8), "at least one pixel; got 4 x 0"),
], ids=lambda value: f"{value.shape} {value.dtype}" if isinstance(value, np.ndarray) else "")
def test_an_array_of_another_shape_or_kind_is_refused(array, message):
    with pytest.raises(ValueError, match=message):
        decoded(array)


@pytest.mark.parametrize("mode", ["I", "F", "La", "RGBa"])
def test_a_mode_whose_white_is_not_known_is_refused(mode):
    with pytest.raises(ValueError, match=f"got Pillow's mode '{mode}'.*Convert it to \"RGB\""):
        decoded(Image.new(mode, (2, 2)))


def test_other_objects_are_refused(tmp_path):
    rule = "an image must be a path, the bytes of a file, a Pillow image or an array; got"
    with pytest.raises(ValueError, match=rf"{rule} Tensor. Pass .* x.permute\(1, 2, 0\).numpy"):
        decoded(torch.zeros(3, 2, 2))
    for source in (None, 3, [[1]], io.BytesIO(as_file(noise(2, 2)))):
        with pytest.raises(ValueError, match=rf"{rule} \w+. Pass an open file as file.read"):
            decoded(source)


def test_an_empty_and_a_closed_pillow_image_are_refused():
    with pytest.raises(ValueError, match="at least one pixel; got 0 x 5"):
        decoded(Image.new("RGB", (5, 0)))
    image = Image.open(io.BytesIO(as_file(noise(2, 2))))
    image.close()
    with pytest.raises(ValueError, match="must be whole; it cannot be decoded"):
        decoded(image)


def test_an_unknown_rule_for_transparency_is_refused():
    with pytest.raises(ValueError, match="must be one of 'white', 'dropped'; got 'black'"):
        decoded(noise(2, 2), transparency="black")


def test_without_pillow_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ValueError, match="not installed .* Run pip install pillow"):
        decoded(b"")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_read_or_refused_and_nothing_else(kind):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image = Image.fromarray(noise(12, 12))
    whole = as_file(image, kind, **({} if kind in ("GIF", "BMP", "PPM", "JPEG2000") else
                                    {"exif": exif}))
    chance = random.Random(kind)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 2, 8])):
            data[chance.randrange(min(len(data), chance.choice([40, 200, 10**6])))] = \
                chance.randrange(256)
        del data[chance.choice([len(data), chance.randrange(1, len(data))]):]
        try:
            assert decoded(bytes(data)).mode == "RGB"
        except ValueError as error:
            assert len(str(error)) < 600


# --- memory ---------------------------------------------------------------------------------------

MEMORY = """
import pathlib, re, sys
from llama_from_scratch.vision.tiles import Tiling, split
def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search("VmHWM: *\\t *([0-9]+) kB", status)[1]) * 1024
tiling = Tiling(size_px=560)
split([[sys.argv[1]]], tiling)
before = peak()
for path in sys.argv[2:]:
    split([[path]], tiling)
print((peak() - before) / (4000 * 3000 * 3))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it reads the peak from /proc")
def test_a_photo_of_12_megapixels_takes_at_most_four_copies_of_memory(tmp_path):
    row, column = np.mgrid[:3000, :4000]
    photo = Image.fromarray(np.stack([row // 12, column // 16, (row + column) // 28], 2)
                            .astype(np.uint8))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    photo.save(tmp_path / "photo.jpg", exif=exif)
    photo.convert("P").save(tmp_path / "palette.png", transparency=3, compress_level=1)
    (tmp_path / "small.png").write_bytes(as_file(noise(9, 9)))
    for name in ("photo.jpg", "palette.png"):
        done = subprocess.run([sys.executable, "-c", MEMORY, tmp_path / "small.png",
                               tmp_path / name], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert 1 < float(done.stdout) < 4, (name, done.stdout)
