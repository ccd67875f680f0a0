"""The plain model's functions as fused CUDA kernels, and `fuse`, which puts them into a model.

`rms_norm`, `rope`, `swiglu` and `adamw` are each one `.cu` file, a ladder from naive to fast, and a
module of the same name that launches it. The same source runs on a GPU, after `machinery` has
compiled it, and on any CPU, through `emulator`. `trial` compares every kernel with float64 and
times it. Nothing is compiled before it is called.

Notebooks 30, 31, 32 and 36.
"""

from llama_from_scratch.kernels.adamw import FusedAdamW as FusedAdamW
from llama_from_scratch.kernels.fuse import fuse as fuse
from llama_from_scratch.kernels.fuse import unfuse as unfuse
from llama_from_scratch.kernels.rms_norm import add_rms_norm as add_rms_norm
from llama_from_scratch.kernels.rms_norm import rms_norm as rms_norm
from llama_from_scratch.kernels.rope import rope as rope
from llama_from_scratch.kernels.swiglu import swiglu as swiglu
