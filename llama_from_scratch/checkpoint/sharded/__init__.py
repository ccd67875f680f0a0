"""A checkpoint whose tensors are in several files, of which each has pieces of them.

`region` says which elements of a tensor a piece holds, `manifest` lists all pieces of a checkpoint,
`shard_file` writes one file, and `saved` reads any part of any tensor. Ranks write such checkpoints
(`parallel.saving`). Reading needs no ranks, so one process can read them, too.

Notebook 47.
"""
