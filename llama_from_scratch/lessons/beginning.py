"""The call with which every notebook of the course starts."""

import torch

from llama_from_scratch.lessons.figures.look import style


def begin() -> None:
    """Sets the look of figures and of printed tensors, and has PyTorch compute on one core.

    The models of the course are so small that dividing a matrix product among cores takes longer
    than the product itself. On a busy machine, chapter 15 took 5.9 seconds of processor time with
    one thread and 41.8 with two. One thread also always adds in the same order, so you see the same
    numbers on every machine with the same processor. A larger model of your own is faster on all
    cores: call `torch.set_num_threads(n)` after this function.
    """
    style()
    torch.set_num_threads(1)
