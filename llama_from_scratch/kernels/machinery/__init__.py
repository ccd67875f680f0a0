"""Everything between a kernel's text and its launch, the same for every kernel, on a GPU and on the
emulator.

`source` reads what a `.cu` file declares and packs arguments for it, `nvrtc` compiles it for a GPU,
`cache` keeps what was compiled, `driver` launches on a GPU, and `launch` is the one call that runs
a kernel where its tensors are. `tensors` is what all wrappers ask of their tensors; `resources`
measures what each kernel takes of a GPU and holds it to `budget.json`.
"""
