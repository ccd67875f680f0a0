"""Pixels -> what a text model attends to, and text models that attend to it.

images  tiles       any image as RGB; cut into tiles of one size
shown_images  seeing        what all images and all models that see have in common

Llama 3.2 Vision:
encoder  tables  costs      the encoder of the tiles and its projector; their sizes
image_mask  image_cache  cross_attention  adapter     attached to a text model

Llama 4:
fusion_tiles  image_layout          tiles, and how they are written in a text
fusion_encoder  early_fusion        the encoder; its tokens among the tokens of a text
fusion_costs                        what an image costs
"""

from llama_from_scratch.vision.adapter import EncodedImages as EncodedImages
from llama_from_scratch.vision.adapter import VisionLlama as VisionLlama
from llama_from_scratch.vision.adapter import attach as attach
from llama_from_scratch.vision.adapter import detach as detach
from llama_from_scratch.vision.adapter import share_places as share_places
from llama_from_scratch.vision.early_fusion import FusionLlama as FusionLlama
from llama_from_scratch.vision.early_fusion import fuse_vision as fuse_vision
from llama_from_scratch.vision.encoder import VisionEncoder as VisionEncoder
from llama_from_scratch.vision.encoder import VisionModel as VisionModel
from llama_from_scratch.vision.fusion_encoder import TileEncoder as TileEncoder
from llama_from_scratch.vision.fusion_encoder import TileModel as TileModel
from llama_from_scratch.vision.fusion_tiles import EncodedGridImages as EncodedGridImages
from llama_from_scratch.vision.fusion_tiles import GridImages as GridImages
from llama_from_scratch.vision.fusion_tiles import split_grids as split_grids
from llama_from_scratch.vision.seeing import SeeingLlama as SeeingLlama
from llama_from_scratch.vision.tiles import GridTiling as GridTiling
from llama_from_scratch.vision.tiles import TiledImages as TiledImages
from llama_from_scratch.vision.tiles import Tiling as Tiling
from llama_from_scratch.vision.tiles import split as split
