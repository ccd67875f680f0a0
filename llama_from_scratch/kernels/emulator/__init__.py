"""A CUDA machine on the CPU: it runs, checks and traces the kernels of this folder's parent, unchanged, on any laptop."""
