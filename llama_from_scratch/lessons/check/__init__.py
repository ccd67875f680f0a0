"""The kit that judges: compares what the reader built with what it should be, and answers in words.

A success prints one line; a failure raises `CheckFailed`, which says what differs, where, and the
likely cause.

    values       equal, changed: a value against what it should be, or against what it was
    functions    function, gradients: what a function returns, and what flows back through it
    models       compare: two whole models, and the first module that diverges
    calling      runs what the reader wrote, whatever it does
    deadline     ends what does not end
    failures     CheckFailed, NotWritten: the errors that a notebook shows
    difference   what differs between two values
    words        how messages name values and count
    diagnosis    why: each typical mistake, recognized
"""

from llama_from_scratch.lessons.check.failures import CheckFailed as CheckFailed
from llama_from_scratch.lessons.check.failures import NotWritten as NotWritten
from llama_from_scratch.lessons.check.functions import function as function
from llama_from_scratch.lessons.check.functions import gradients as gradients
from llama_from_scratch.lessons.check.models import compare as compare
from llama_from_scratch.lessons.check.values import changed as changed
from llama_from_scratch.lessons.check.values import equal as equal
