"""Pictures with controls, for any function that draws.

    explorer     explore: a slider, menu or field for each argument of a function
    hover        what is under the pointer, in words
    live         LivePlot: a training run while it runs
    course       ProgressView: the exercises of the whole course
"""

from llama_from_scratch.lessons.widgets.explorer import Explorer as Explorer
from llama_from_scratch.lessons.widgets.explorer import explore as explore
