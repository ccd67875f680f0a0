"""Pictures shrink only where the eye cannot tell."""

import base64
import io

import numpy as np
from PIL import Image

from llama_from_scratch.lessons.authoring.palette import MAX_PALETTE_ERROR, shrink_png


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()


def test_picture_with_few_colors_shrinks_and_stays_what_it_was():
    ramp = np.arange(0, 250, 5, dtype=np.uint8)[None, :, None].repeat(3, axis=2).repeat(50, axis=0)
    noise = np.random.default_rng(0).integers(0, 50, size=(50, 50, 1)).astype(np.uint8) * 5
    array = np.concatenate([ramp, noise.repeat(3, axis=2)])
    small = shrink_png(png(array))
    assert len(small) < 0.7 * len(png(array))
    back = np.asarray(Image.open(io.BytesIO(base64.b64decode(small))).convert("RGB"), dtype=float)
    assert np.sqrt(((back - array) ** 2).mean()) <= MAX_PALETTE_ERROR
    assert shrink_png(small) == small == shrink_png(png(array))


def test_picture_that_a_palette_would_spoil_is_kept():
    array = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3)).astype(np.uint8)
    assert shrink_png(png(array)) == png(array)
