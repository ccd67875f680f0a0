"""What every notebook of the course calls first."""

import torch

from llama_from_scratch.lessons.figures.look import style


def begin() -> None:
    """Sets the look of figures and of printed tensors, and has PyTorch compute on one core.

    The models of the course are small: dividing a matrix product among cores takes longer than the
    product. On a machine that does other work too, chapter 15 took 5.9 seconds of processor time
    with one thread and 41.8 with two. One thread also adds in one order, so that the same numbers
    come out on every machine with the same processor. A model of your own that is larger is faster
    on all cores: `torch.set_num_threads(n)` after this call.
    """
    style()
    torch.set_num_threads(1)
