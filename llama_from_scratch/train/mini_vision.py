"""The small model that sees: trained once and bundled, because that takes longer than two minutes.

`data/vision` holds it in our own format. Its text model is like the minis of other families; its
encoder and its cross-attention learned from small scenes and from handwritten digits.

Notebook 22.
"""

from typing import Any

import torch

from llama_from_scratch import bundled
from llama_from_scratch.checkpoint.load import load
from llama_from_scratch.vision.adapter import VisionLlama, share_places

FOLDER = "vision"


def trained() -> tuple[VisionLlama, Any]:
    """Returns the bundled model that sees, in float32, and its tokenizer.

    Its tables of places become one grid, so that every layout of Llama 3.2 Vision can hold them. A
    model with one tile computes the same with them.
    Raises FileNotFoundError if the bundled data is not there, and ValueError if it is another kind
    of model.
    """
    path = bundled.path(FOLDER)
    model, tokenizer = load(path, dtype=torch.float32)
    if not isinstance(model, VisionLlama):
        raise ValueError(f"the bundled model in {path} must see images; it is a text model. Get "
                         "the folder from the repository again")
    share_places(model)
    return model, tokenizer
