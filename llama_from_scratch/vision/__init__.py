"""Pixels -> what a text model attends to: images in, image states out.

images  tiles       any image as RGB; cut into tiles of one size
encoder  costs      the encoder of the tiles and its projector; their sizes
"""

from llama_from_scratch.vision.encoder import VisionEncoder as VisionEncoder
from llama_from_scratch.vision.encoder import VisionModel as VisionModel
from llama_from_scratch.vision.tiles import TiledImages as TiledImages
from llama_from_scratch.vision.tiles import Tiling as Tiling
from llama_from_scratch.vision.tiles import split as split
