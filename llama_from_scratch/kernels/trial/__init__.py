"""Whether the kernels are right, and how fast they are: what runs before anyone relies on them.

`tolerance` decides how far off a result may be, `compare` holds every kernel's results against
float64 with it, `bench` times the kernels beside everything else that does the same, and `gpu` does
all of this on a machine with a GPU (`start.py gpu`).
"""
