"""A CUDA machine on the CPU: it runs, checks and traces the same kernel sources on any laptop.

`build` compiles a source for this CPU, `machine` launches it, and `trace` records every access of a
launch on a `tape`. The names come from the `debug_info` of the compiled file, and the `rules` of
CUDA's memory judge the accesses.
"""
