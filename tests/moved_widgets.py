"""What the tests of the views share: a text, and the figure under a widget for the present values
of its controls.
"""

import torch

TEXT = "the little dog"


def figure_of(explorer):
    return explorer.draw(**{name: control.value for name, control in explorer.controls.items()})


def ids_of(tokenizer, text=TEXT):
    return torch.tensor(tokenizer.encode(text, bos=True))


def ends(control):
    """The first and the last value of a control."""
    if hasattr(control, "options"):
        options = [each[1] if isinstance(each, tuple) else each for each in control.options]
        return options[0], options[-1]
    return (control.min, control.max) if hasattr(control, "max") else (control.value,)
