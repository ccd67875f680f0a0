"""The plain model's functions as fused CUDA kernels, and `fuse`, which puts them into a model.

`rms_norm`, `rope`, `swiglu`, `attention`, `cross_entropy`, `decode`, `quantized` and `adamw` are
each a ladder of kernels from naive to fast in a `.cu` file, and a module of the same name that
launches it. What needs tensor cores is in files of its own. `step_graph` records a decoding step as
a CUDA graph and repeats it, and `training` puts the kernels into a training run. The same source
runs on a GPU, after `machinery` has compiled it, and on any CPU, through `emulator`. `trial`
compares every kernel with float64 and times it. Nothing is compiled before it is called.

Notebooks 30 to 37.
"""

from llama_from_scratch.kernels.adamw import FusedAdamW as FusedAdamW
from llama_from_scratch.kernels.attention import attention as attention
from llama_from_scratch.kernels.attention import attention_with_lse as attention_with_lse
from llama_from_scratch.kernels.cross_entropy import linear_cross_entropy as linear_cross_entropy
from llama_from_scratch.kernels.decode import decode_attention as decode_attention
from llama_from_scratch.kernels.fuse import fuse as fuse
from llama_from_scratch.kernels.fuse import unfuse as unfuse
from llama_from_scratch.kernels.quantized import int4_linear as int4_linear
from llama_from_scratch.kernels.quantized import int8_linear as int8_linear
from llama_from_scratch.kernels.rms_norm import add_rms_norm as add_rms_norm
from llama_from_scratch.kernels.rms_norm import rms_norm as rms_norm
from llama_from_scratch.kernels.rope import rope as rope
from llama_from_scratch.kernels.swiglu import swiglu as swiglu
