"""Checks whether the kernels are right, and measures how fast they are.

    conformance     single instructions of a GPU, against their documentation and the emulator
    operations      what is compared and timed: `pointwise`, `attending` and `products`
    tolerance       how far off a result may be
    compare         every kernel's results against float64
    timing          times, floors and clocks
    bench           a row of times for each kernel, and for everything else that does the same
    contests        the shapes among which `tuning` chooses by measuring
    whole_decoding, training_step    whole models
    parts, results  processes that may fail, and a file that grows
    gpu             all of it, as parts: `start.py gpu`
"""
