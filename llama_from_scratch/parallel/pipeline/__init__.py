"""Pipeline parallel: each rank has some of the layers, and micro-batches go from rank to rank.

`schedule` says in which order, as data; `run` executes a schedule on ranks.

Notebook 44.
"""
