"""Pictures with controls, for any function that draws.

    explorer     explore: a slider, menu or field for each argument of a function
    hover        words for the cell under the pointer
    live         LivePlot: a training run while it runs
    busy         moving: a bar for a loop that takes more than a few seconds
    course       ProgressView: the exercises of the whole course
    parts        shared parts: sizes, labels, the notice of a widget without a kernel
"""

from llama_from_scratch.lessons.widgets.explorer import Explorer as Explorer
from llama_from_scratch.lessons.widgets.explorer import explore as explore
