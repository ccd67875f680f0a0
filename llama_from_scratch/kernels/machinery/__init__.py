"""Contains everything between a kernel's text and its launch, on a GPU and on the emulator.

It is the same for every kernel. `source` reads what a `.cu` file declares and packs arguments for
it, `nvrtc` compiles it for a GPU, `cache` keeps what was compiled, `driver` launches on a GPU, and
`launch` is the one call that runs a kernel where its tensors are. `tensors` checks what all
wrappers require of their tensors, and `tensor_map` describes a tensor to the unit that copies
tiles. `resources` measures the registers and memory that each kernel takes of a GPU, and compares
them with `budget.json`.
"""
