"""Pixels -> what a text model attends to.

encoder  costs      the encoder and its projector; their sizes
"""

from llama_from_scratch.vision.encoder import VisionEncoder as VisionEncoder
from llama_from_scratch.vision.encoder import VisionModel as VisionModel
