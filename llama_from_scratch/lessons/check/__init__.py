"""The kit that judges: compares what the reader built with what it should be, and answers in words.

A success prints one line; a failure raises `CheckFailed`, which says what differs, where, and the
likely cause.

    values       equal, numbers, changed: values against what they should be, or what they were
    functions    function, answers, gradients: what a function returns, and what flows back
    models       compare: two whole models, and the first module that diverges
    calling      runs what the reader wrote, whatever it does
    deadline     ends what does not end
    failures     CheckFailed, NotWritten: the errors that a notebook shows
    known        looking_for: the mistakes that an exercise lists, named when they explain all
    difference   what differs between two values
    words        how messages name values and count
    diagnosis    why: each typical mistake, recognized
"""

from llama_from_scratch.lessons.check.failures import CheckFailed as CheckFailed
from llama_from_scratch.lessons.check.failures import NotWritten as NotWritten
from llama_from_scratch.lessons.check.functions import answers as answers
from llama_from_scratch.lessons.check.functions import function as function
from llama_from_scratch.lessons.check.functions import gradients as gradients
from llama_from_scratch.lessons.check.models import compare as compare
from llama_from_scratch.lessons.check.values import changed as changed
from llama_from_scratch.lessons.check.values import equal as equal
from llama_from_scratch.lessons.check.values import numbers as numbers
