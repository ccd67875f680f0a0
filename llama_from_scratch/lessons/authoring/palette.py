"""Makes stored pictures smaller, with fewer colors if the difference cannot be seen."""

import base64
import io

# Below this root-mean-square error of a color channel (0..255), figures with thin lines and text
# looked the same.
MAX_PALETTE_ERROR = 4.0


def shrink_png(png: str) -> str:
    """Returns a PNG (base64) with 64 or 256 colors if the difference cannot be seen.

    Figures have few colors, so most of them shrink to less than half. A photograph does not change.
    """
    import numpy as np
    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    if picture.mode == "P":
        return png
    if picture.mode == "RGBA" and picture.getextrema()[3] != (255, 255):
        return png
    rgb = picture.convert("RGB")
    smallest = png
    for n_colors in (64, 256):
        palette = rgb.quantize(n_colors, method=Image.Quantize.MAXCOVERAGE, kmeans=2,
                               dither=Image.Dither.NONE)
        error = np.asarray(palette.convert("RGB"), dtype=float) - np.asarray(rgb, dtype=float)
        if np.sqrt((error**2).mean()) <= MAX_PALETTE_ERROR:
            buffer = io.BytesIO()
            palette.save(buffer, "png", optimize=True)
            smallest = min(smallest, base64.b64encode(buffer.getvalue()).decode(), key=len)
            break
    return smallest
