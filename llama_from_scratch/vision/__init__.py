"""Pixels -> what the model attends to: images in, image states out.

images  tiles        any image as RGB; cut into tiles of one size
"""

from llama_from_scratch.vision.tiles import TiledImages as TiledImages
from llama_from_scratch.vision.tiles import Tiling as Tiling
from llama_from_scratch.vision.tiles import split as split
