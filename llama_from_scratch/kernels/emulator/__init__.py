"""A CUDA machine on the CPU: it runs, checks and traces the same kernel sources on any laptop.

`build` compiles a source for this CPU, `machine` launches it, and `trace` records every access of a
launch on a `tape`. The names come from the `debug_info` of the compiled file, and the `rules` of
CUDA's memory judge the accesses. `fragments` finds which lane holds which number of a matrix, and
`timeline` turns a trace of copies and tensor cores into bars.

The C++ side is `cuda_on_cpu.h`. Three headers extend it: `async.h` (copies that complete later),
`tensor_cores.h` (mma and ldmatrix) and `hopper.h` (the TMA, mbarriers and wgmma).
"""
