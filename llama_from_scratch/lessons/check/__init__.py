"""Compares what the reader built with what it should be, and explains the difference.

A success prints one line. A failure raises `CheckFailed`, whose message says what differs, where,
and the likely cause.

    values       equal, numbers, changed: compares values with the expected or earlier ones
    functions    function, answers, gradients: compares results and gradients of a function
    models       compare: compares two whole models and finds the first module that differs
    calling      calls the reader's code and reports whatever happens
    deadline     stops code that runs for too long
    failures     CheckFailed, NotWritten: the errors that a notebook shows
    known        looking_for: names a mistake of the exercise's list that explains every answer
    difference   describes what differs between two values
    words        names and counts values in messages
    diagnosis    finds the likely cause of a difference
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
