"""Checks whether the kernels are right, and measures how fast they are.

`tolerance` decides how far off a result may be, `compare` compares every kernel's results with
float64, `bench` times the kernels and everything else that does the same, and `gpu` does all of
this on a machine with a GPU (`start.py gpu`).
"""
