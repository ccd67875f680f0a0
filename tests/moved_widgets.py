"""What the tests of the views share: a text, and the figure under a widget for the present values
of its controls.
"""

import torch

TEXT = "the little dog"


def figure_of(explorer):
    return explorer.draw(**{name: control.value for name, control in explorer.controls.items()})


def ids_of(tokenizer, text=TEXT):
    return torch.tensor(tokenizer.encode(text, bos=True))
