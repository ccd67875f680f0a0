"""What `lora` is made of: where adapters go, how they are trained alone, and their files.

- `bases`: the linear layers of a model, and the digest that tells two bases apart
- `runs`: trains adapters alone; checkpoints hold only them
- `peft_files`: the layout of PEFT's folders

Notebook 51.
"""
