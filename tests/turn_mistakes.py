"""A mistake in the first exercise of the turn chapter, importable in a kernel too."""

KNOWN_IN_THE_KERNEL = """
from turn_mistakes import sign_left_out
from llama_from_scratch.lessons import check, mistakes
from llama_from_scratch.lessons.check.known import Mistake
listed = [Mistake(of="turned", words="the sign is left out", wrong=sign_left_out)]
mistakes.of = lambda name: listed"""


def sign_left_out(x):
    return x
