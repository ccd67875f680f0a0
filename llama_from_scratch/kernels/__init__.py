"""The same functions as the plain model's, as fused CUDA kernels, and `fuse`, which puts them into a model."""
