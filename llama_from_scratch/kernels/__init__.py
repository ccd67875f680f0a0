"""The same functions as the plain model's, as fused CUDA kernels, and `fuse`, which puts them into a model.

Each kernel is one `.cu` file, a ladder from naive to fast, with a module of the same name that launches it: on a GPU after
NVRTC compiled it (`nvrtc`, `driver`), on any CPU through the emulator (`emulator`), from the same source. Nothing is compiled
before it is called.

Notebooks 30 to 36.
"""

from llama_from_scratch.kernels.adamw import FusedAdamW as FusedAdamW
from llama_from_scratch.kernels.fuse import fuse as fuse
from llama_from_scratch.kernels.fuse import unfuse as unfuse
from llama_from_scratch.kernels.rms_norm import add_rms_norm as add_rms_norm
from llama_from_scratch.kernels.rms_norm import rms_norm as rms_norm
from llama_from_scratch.kernels.rope import rope as rope
from llama_from_scratch.kernels.swiglu import swiglu as swiglu
