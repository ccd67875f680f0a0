"""The small model that reads images as tokens: trained once and stored, as it takes minutes.

`data/fusion` holds its config, its weights in bfloat16, and the results of the comparison with
cross-attention. Its tokenizer is the one of `data/vision`, whose text model it began with.

Notebook 24.
"""

from pathlib import Path
from typing import Any

import torch

from llama_from_scratch import bundled
from llama_from_scratch.checkpoint import native
from llama_from_scratch.checkpoint.json_file import read_json, write_json
from llama_from_scratch.checkpoint.safetensors_file import read_tensors, write_tensors
from llama_from_scratch.config import FusionLlamaConfig
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.train import mini_vision
from llama_from_scratch.vision.early_fusion import FusionLlama

FOLDER, RESULTS = "fusion", "results.json"
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


def trained() -> tuple[FusionLlama, AnyTokenizer]:
    """Returns the stored model that reads images as tokens, in float32, and its tokenizer.

    Raises FileNotFoundError if the bundled data is not there, and ValueError if it is damaged.
    """
    model = read(bundled.path(FOLDER))
    return model, native.load_tokenizer(bundled.path(mini_vision.FOLDER))


def results() -> dict[str, Any]:
    """Returns the stored results of the training of both ways to see, by the name of the way."""
    return read_json(bundled.path(FOLDER) / RESULTS)


def write(folder: Path, model: FusionLlama) -> None:
    """Writes the config and the weights, in bfloat16, into a folder that exists."""
    write_json(folder / _CONFIG, model.config.to_dict())
    write_tensors(folder / _WEIGHTS, {name: weight.detach().to(torch.bfloat16)
                                      for name, weight in model.state_dict().items()})


def read(folder: Path) -> FusionLlama:
    """Returns the model that `write` wrote, in float32. Raises ValueError for other weights."""
    model = FusionLlamaConfig.from_dict(read_json(folder / _CONFIG)).new_model()
    found = read_tensors(folder / _WEIGHTS)
    wanted = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    if wanted != (shapes := {name: tuple(weight.shape) for name, weight in found.items()}):
        other = sorted(set(wanted.items()) ^ set(shapes.items()))
        raise ValueError(f"the weights in {folder} must fit its config; different are "
                         f"{other[:4]}. Make them again: python data/make_fusion.py")
    model.load_state_dict({name: weight.float() for name, weight in found.items()})
    return model
