"""Widgets that show the reader's own model, tokenizer and runs.

Each widget has a frame, which is the same picture without controls.

`attention(model, tokenizer, text="...")` is a widget, and `attention_frame(...)` draws its figure.
A frame takes numbers and never runs a model. Every widget runs the model again when a control
moves, so it shows the current weights.

    merging        merges: bytes of a text are merged into tokens                      chapter 10
    rotation       rope: hands that turn with the position                             chapter 12
    heads          attention: which token looks at which                               chapter 13
    layers         residual_stream: what each layer adds, and what it would predict    chapter 15
    dials          sampling: next tokens before and after temperature and filters      chapter 16
    sweep          learning_rates: finished runs, by learning rate                     chapter 17
    sizes          what a model costs: parameters, FLOPs, the KV cache       chapters 13, 15, 16
    experiments    choose_runs: remembered runs, drawn and compared                    chapter 09
    chat           ChatWindow, Conversation: write with a model, or talk to it     chapters 17, 19
    gpu            the emulated CUDA machine                                           chapter 30
    inspect_model  the numbers behind these pictures: trace, lens
    text           a reader's text as tokens
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_from_scratch.lessons.views.dials import sampling as sampling
    from llama_from_scratch.lessons.views.dials import sampling_frame as sampling_frame
    from llama_from_scratch.lessons.views.experiments import choose_runs as choose_runs
    from llama_from_scratch.lessons.views.heads import attention as attention
    from llama_from_scratch.lessons.views.heads import attention_frame as attention_frame
    from llama_from_scratch.lessons.views.heads import (
        attention_heads_frame as attention_heads_frame,
    )
    from llama_from_scratch.lessons.views.layers import residual_frame as residual_frame
    from llama_from_scratch.lessons.views.layers import residual_stream as residual_stream
    from llama_from_scratch.lessons.views.merging import merges as merges
    from llama_from_scratch.lessons.views.merging import merges_frame as merges_frame
    from llama_from_scratch.lessons.views.merging import merges_used as merges_used
    from llama_from_scratch.lessons.views.rotation import rope as rope
    from llama_from_scratch.lessons.views.rotation import rope_frame as rope_frame
    from llama_from_scratch.lessons.views.sweep import final_loss as final_loss
    from llama_from_scratch.lessons.views.sweep import learning_rates as learning_rates
    from llama_from_scratch.lessons.views.sweep import learning_rates_frame as learning_rates_frame
    from llama_from_scratch.lessons.views.text import encode as encode

# Loaded when used, because `inspect_model` draws nothing and needs no drawing packages.
_HOMES = {
    "attention": "heads", "attention_frame": "heads", "attention_heads_frame": "heads",
    "choose_runs": "experiments", "encode": "text", "final_loss": "sweep",
    "learning_rates": "sweep", "learning_rates_frame": "sweep",
    "merges": "merging", "merges_frame": "merging", "merges_used": "merging",
    "residual_frame": "layers", "residual_stream": "layers",
    "rope": "rotation", "rope_frame": "rotation",
    "sampling": "dials", "sampling_frame": "dials",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
