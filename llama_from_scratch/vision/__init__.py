"""Pixels -> what a text model attends to, and text models that attend to it.

images  tiles       any image as RGB; cut into tiles of one size
encoder  tables  costs      the encoder of the tiles and its projector; their sizes
image_mask  image_cache  cross_attention  adapter     attached to a text model
"""

from llama_from_scratch.vision.adapter import EncodedImages as EncodedImages
from llama_from_scratch.vision.adapter import VisionLlama as VisionLlama
from llama_from_scratch.vision.adapter import attach as attach
from llama_from_scratch.vision.adapter import detach as detach
from llama_from_scratch.vision.adapter import share_places as share_places
from llama_from_scratch.vision.encoder import VisionEncoder as VisionEncoder
from llama_from_scratch.vision.encoder import VisionModel as VisionModel
from llama_from_scratch.vision.tiles import TiledImages as TiledImages
from llama_from_scratch.vision.tiles import Tiling as Tiling
from llama_from_scratch.vision.tiles import split as split
