"""What the notebooks need around the library.

    beginning    begin: what every notebook calls first
    check        compares the reader's work: equal, function, answers, gradients, compare
    exercises    read from the notebooks, shown on demand, recorded when done
    mistakes     the wrong answers of common mistakes, a module for each chapter
    figures      still pictures and drawings, all with one look
    widgets      pictures with controls, for any function that draws
    learner      guesses before answers, attempts, help, milestones
    views        pictures and widgets of models, tokenizers, runs and the emulated GPU
    authoring    makes, checks and copies the notebooks

Each of these folders imports only from the ones above it. `from llama_from_scratch.lessons import
...` also gives the names below, in whatever folder they are. A module is loaded when one of its
names is first used, so the exercises load only the standard library.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_from_scratch.lessons.beginning import begin as begin
    from llama_from_scratch.lessons.figures import measured as measured
    from llama_from_scratch.lessons.figures.losses import plot_losses as plot_losses
    from llama_from_scratch.lessons.learner import milestones as milestones
    from llama_from_scratch.lessons.learner import predict as predict
    from llama_from_scratch.lessons.learner.attempts import attempt as attempt
    from llama_from_scratch.lessons.learner.remembering import remember as remember
    from llama_from_scratch.lessons.views import gpu as gpu
    from llama_from_scratch.lessons.views import inspect_model as inspect_model
    from llama_from_scratch.lessons.views import sizes as sizes
    from llama_from_scratch.lessons.views.chat import ChatWindow as ChatWindow
    from llama_from_scratch.lessons.views.chat import Conversation as Conversation
    from llama_from_scratch.lessons.widgets.busy import moving as moving
    from llama_from_scratch.lessons.widgets.course import ProgressView as ProgressView
    from llama_from_scratch.lessons.widgets.explorer import explore as explore
    from llama_from_scratch.lessons.widgets.live import LivePlot as LivePlot

_MODULES = {
    "gpu": "views.gpu", "inspect_model": "views.inspect_model", "measured": "figures.measured",
    "milestones": "learner.milestones", "predict": "learner.predict", "sizes": "views.sizes",
}
_HOMES = {
    "ChatWindow": "views.chat", "Conversation": "views.chat", "LivePlot": "widgets.live",
    "ProgressView": "widgets.course", "attempt": "learner.attempts", "begin": "beginning",
    "explore": "widgets.explorer", "moving": "widgets.busy", "plot_losses": "figures.losses",
    "remember": "learner.remembering",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{_MODULES[name]}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
